"""How the metric cards look: the table of ticks, the card of one metric, and its curves."""

import html

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from . import cards, metrics
from . import conventions as convert
from .plots import COLOURS, GREY, PALETTE, WIDTH
from .sensitivity import DAMAGE, RATIOS, Measured


def ticks(deck: dict[str, Measured]) -> None:
    """Show all cards against all changes: what leaves the value, done to either side (✓), or to X or to Y only."""
    columns = [*cards.CHANGES, cards.STIMULI]
    head = "".join(f"<th>{column}</th>" for column in ["", *columns, "X and Y exchanged"])
    body, plain = "", []
    for name, one in deck.items():
        kept = [_tick(one, change) for change in columns] + ["✓" if one.asymmetry <= cards.KEPT else "–"]
        link = f'<a href="#card-{name.replace("_", "-")}">{html.escape(one.card.title)}</a>'
        body += f"<tr><th>{link}</th>" + "".join(f"<td>{tick}</td>" for tick in kept) + "</tr>"
        plain.append(f"{one.card.title}: " + ", ".join(f"{c} {k}" for c, k in zip(columns, kept, strict=False)))
    table = f'<table class="dataframe ticks"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    display({"text/html": table, "text/plain": "\n".join(plain)}, raw=True)


def _tick(one: Measured, change: str) -> str:
    kept = one.promises[(one.promises.change == change) & one.promises.kept].side.tolist()
    sides = {"both"} if change == cards.STIMULI else {"X", "Y"}
    return "✓" if set(kept) == sides else kept[0] if kept else "–"


def variants(measured: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What options change: a row for each call, with the ticks that it gains and loses.

    Parameters
    ----------
    measured : call -> what `cards.measure_promises` gave for that variant
    """
    rows = []
    for call, promises in measured.items():
        usual = next(card for card in cards.CARDS.values() if card.function == cards.VARIANTS[call].function)
        before, now = set(usual.promises()), {(p.change, p.side) for p in promises.itertuples() if p.kept}
        rows.append((call, _words(now - before), _words(before - now)))
    table = pd.DataFrame(rows, columns=["call", "also unchanged by", "no longer by"]).set_index("call")
    return table.loc[:, (table != "–").any()]


def _words(changes: set[tuple[str, str]]) -> str:
    words = []
    for change in [*cards.CHANGES, cards.STIMULI]:
        sides = sorted(side for name, side in changes if name == change)
        if sides:
            words.append(change if sides in (["X", "Y"], ["both"]) else f"{change} (of {sides[0]})")
    return ", ".join(words) or "–"


def card(one: Measured) -> None:
    """Show what was measured of one metric, as a list that a phone can wrap."""
    rows = {}
    sides = {"X": "X", "Y": "Y"} if _by_side(one.promises, "X") != _by_side(one.promises, "Y") else {"X": "X or Y"}
    for side, words in sides.items():
        shown = one.promises[one.promises.side == side].sort_values("kept", ascending=False, kind="stable")
        rows[f"changes to {words}"] = " · ".join(
            _deviation(row.kept, row.change, row.largest) for row in shown.itertuples()
        )
    stimuli = one.promises[one.promises.side == "both"].iloc[0]
    exchanged = _deviation(one.asymmetry <= cards.KEPT, "X and Y exchanged", one.asymmetry)
    rows["changes to both"] = f"{_deviation(stimuli.kept, cards.STIMULI, stimuli.largest)} · {exchanged}"
    rows["range"] = f"{_bounds(one)}; seen: {_number(one.seen[0])} to {_number(one.seen[1])}"
    rows["unrelated data"] = _chance(one)
    seconds, (n_stimuli, n_units) = one.cost["seconds"], one.cost_at
    rows["time"] = (
        f"grows as {one.card.grows}; {_milliseconds(seconds)} ms for {n_stimuli:,} stimuli and {n_units} units, "
        f"× {one.cost['twice_stimuli']:.1f} for twice the stimuli, × {one.cost['twice_units']:.1f} for twice the units"
    )
    body = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows.items())
    plain = "\n".join(f"{name}: {text}" for name, text in rows.items()).replace("<span>", "").replace("</span>", "")
    display({"text/html": f'<dl class="metric-card">{body}</dl>', "text/plain": plain}, raw=True)


def _by_side(promises: pd.DataFrame, side: str) -> set[str]:
    return set(promises[(promises.side == side) & promises.kept].change)


def _deviation(kept: bool, change: str, largest: float) -> str:
    size = f"{largest:.0e}".replace("e-0", "e-").replace("-", "−") if largest < 0.005 else f"{largest:.2f}"
    return f"<span>{'✓' if kept else '✗'} {change} ({'0' if largest == 0 else size})</span>"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00")


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds > 0.01 else f"{1000 * seconds:.1f}"


def _bounds(one: Measured) -> str:
    low, high = (
        ("no bound" if bound is None else f"{bound:g}".replace("-", "−")) for bound in (one.card.low, one.card.high)
    )
    return f"{low} to {high}" if low != high else low


def _chance(one: Measured) -> str:
    said = []
    for fit in one.chance.fit.unique():
        values = ", ".join(f"{_number(one.unrelated(r, fit))} at {r:g}" for r in (RATIOS[0], 1, 4, RATIOS[-1]))
        said.append(values if fit == "as it is" else f"{fit} {values}")
    return "; ".join(said) + " stimuli for each unit"


def other_conventions(X, Y) -> pd.DataFrame:
    """One pair of representations under this library's conventions and under those of others.

    Parameters
    ----------
    X : (n_stimuli, n_units_x)
    Y : (n_stimuli, n_units_y)

    Returns
    -------
    DataFrame with columns here, value, elsewhere, value there, converter (a call; `value` stands for the one here)
    """
    ours = {
        "shape_cosine": metrics.shape_cosine(X, Y),
        "cka": metrics.cka(X, Y),
        "cka, debiased": metrics.cka(X, Y, debiased=True),
        "permutation, in sample": metrics.permutation(X, Y, folds=None),
        "soft_matching, in sample": metrics.soft_matching(X, Y, folds=None),
        "semi_matching, in sample": metrics.semi_matching(X, Y, folds=None),
        "cca": metrics.cca(X, Y),
        "svcca": metrics.svcca(X, Y),
        "mutual_knn": metrics.mutual_knn(X, Y),
        "cknna": metrics.cknna(X, Y),
    }
    cosine, overlap, covariance = ours["shape_cosine"], ours["mutual_knn"], convert.permutation_by_covariance(X, Y)
    squares = (convert.canonical_correlations(X, Y) ** 2).mean()
    both = convert.both_ways(metrics.semi_matching, X, Y, folds=None)
    prepared = metrics.cknna(convert.cut_and_scaled(X), convert.cut_and_scaled(Y))
    rows = [
        ("shape_cosine", "angular shape distance", convert.angle(cosine), "angle(value)"),
        ("shape_cosine", "Procrustes distance at unit norm", convert.chord(cosine), "chord(value)"),
        ("shape_cosine", "… of size and shape", convert.size_and_shape(cosine, X, Y), "size_and_shape(value, X, Y)"),
        ("cka", "angular CKA", convert.angle(ours["cka"]), "angle(value)"),
        ("cka, debiased", "diagonal left out", convert.cka_off_diagonal(X, Y), "cka_off_diagonal(X, Y)"),
        ("permutation, in sample", "on covariances", covariance, "permutation_by_covariance(X, Y)"),
        (
            "permutation, in sample",
            "… as an angle",
            convert.angle(covariance),
            "angle(permutation_by_covariance(X, Y))",
        ),
        ("soft_matching, in sample", "as a distance", convert.chord(ours["soft_matching, in sample"]), "chord(value)"),
        ("semi_matching, in sample", "both directions", both, "both_ways(semi_matching, X, Y, folds=None)"),
        ("cca", "mean of squares", squares, "(canonical_correlations(X, Y) ** 2).mean()"),
        ("svcca", "share of singular values", convert.svcca_by_singular_values(X, Y), "svcca_by_singular_values(X, Y)"),
        ("mutual_knn", "Jaccard, at least", convert.jaccard_bounds(overlap)[0], "jaccard_bounds(value)[0]"),
        ("mutual_knn", "self counts, 11 nearest", convert.counting_self(overlap, 11), "counting_self(value, 11)"),
        ("cknna", "cut off, unit length", prepared, "cknna(cut_and_scaled(X), cut_and_scaled(Y))"),
    ]
    table = pd.DataFrame(rows, columns=["here", "elsewhere", "value there", "converter"])
    table.insert(1, "value", table.here.map(ours))
    return table


def curves(name: str, deck: dict[str, Measured]) -> plt.Figure:
    """A metric's value against growing damage, and for unrelated data; the deck's other metrics lie behind it in grey.

    Lines are means over draws, bands reach from the lowest to the highest. Dashes: chance, from shuffled stimuli. In
    the last panel, which is chance throughout, dots are in-sample values.
    """
    figure, axes = plt.subplots(1, 5, figsize=(WIDTH, 1.9), sharey=True)
    for other, one in deck.items():
        for ax, damage in zip(axes, DAMAGE, strict=False):
            _line(ax, _of(one.sensitivity, "damage", damage), "level", name == other, _colour(one))
        fits = one.chance.fit.unique()
        _line(axes[4], _of(one.chance, "fit", fits[0]), "ratio", name == other, _colour(one))
    own = deck[name]
    chance = _of(own.sensitivity, "damage", "shuffled stimuli").value.mean()
    for ax, (title, damage) in zip(axes, DAMAGE.items(), strict=False):
        ax.axhline(chance, color=GREY, linestyle="--", linewidth=1.2)
        ax.set(title=title, xlabel=damage.unit)
    if own.card.held_out:
        _line(axes[4], _of(own.chance, "fit", "in sample"), "ratio", True, _colour(own), linestyle=":")
    axes[4].set(title="unrelated", xlabel="stimuli/unit", xscale="log", xticks=(1, 10), xticklabels=("1", "10"))
    axes[4].minorticks_off()
    axes[1].set(xticks=(0, 45, 90))
    reach = own.sensitivity.value
    axes[0].set(
        ylabel="value", ylim=(min(-0.15, reach.min() - 0.05), max(1.05, reach.max() + 0.05)), yticks=(0, 0.5, 1)
    )
    figure.tight_layout(w_pad=0.4)
    return figure


def _of(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    return table[table[column] == value]


def _colour(one: Measured) -> str:
    return COLOURS.get(one.card.function, PALETTE[0])


def _line(ax, table: pd.DataFrame, x: str, own: bool, colour: str, linestyle: str = "-") -> None:
    over = table.groupby(x).value
    means = over.mean()
    if not own:
        ax.plot(means.index, means, color=GREY, linewidth=0.6, alpha=0.45)
        return
    ax.plot(means.index, means, color=colour, linewidth=2, linestyle=linestyle, zorder=5)
    ax.fill_between(means.index, over.min(), over.max(), color=colour, alpha=0.25, linewidth=0)
