"""Fill the page of benchmarks with the published table: `python book/benchmarks_page.py FOLDER`, from book/build.py.

In the page, {filled}`name:.1f` stands for a number or a table that is computed here; FOLDER holds the page, and gets
the figures. So no number is typed into the page, and none can go stale.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "book")]
from convergent import plots, published  # noqa: E402  # this checkout's, whatever is installed
from filling import fill, markdown, provenance  # noqa: E402

NAMES = {
    "linear": "ridge regression, both ways",
    "procrustes": "Procrustes",
    "permutation": "permutation",
    "soft_matching": "soft matching",
    "cka": "CKA",
    "cka_debiased": "CKA, debiased",
    "shape_cosine": "shape cosine",
    "rsa": "RSA",
    "all": "four in one call",
    "17 alphas": "ridge, 17 penalties",
}
SUMS = ("sum of the first-named", "sum of the fastest")
SAME = 1e-3  # values that differ by more are another estimate, whose time is no match


class Results:
    """The published table, by what was timed."""

    def __init__(self, table: pd.DataFrame):
        self.dtype = table["dtype"].iloc[0]
        self.every = table
        self.table = table[table["dtype"] == self.dtype]

    def of(self, group: str, work: str | None = None) -> pd.DataFrame:
        """Rows that were timed."""
        rows = self.table[(self.table.group == group) & self.table.seconds.notna()]
        return rows if work is None else rows[rows.work == work]

    def ratio(self, group: str, work: str, side: str) -> float:
        """Seconds of a side over ours."""
        [value] = self.of(group, work).query("side == @side").ratio
        return float(value)

    def fastest(self, group: str, work: str) -> pd.Series:
        """The peer that takes least and whose values are the same."""
        rows = self.of(group, work).query("kind == 'peer' and not side in @SUMS")
        return rows[rows.difference < SAME].sort_values("ratio").iloc[0]


def targets(results: Results) -> pd.DataFrame:
    """What was aimed at and what came out: work, against, measured, aim, met."""
    ours_by_floor = {group: 1 / results.ratio(group, "all", "floor") for group in ("held out", "in sample")}
    in_sample = [results.fastest("in sample", work) for work in results.of("in sample").work.unique() if work != "all"]
    closest = min(in_sample, key=lambda row: row.ratio)
    nested = results.of("nested").query("kind == 'peer'").set_index("side").ratio
    himalaya, sklearn = (nested[nested.index.str.startswith(name)] for name in ("himalaya", "scikit-learn"))
    streaming = results.of("memory").query("side == 'ours, streaming'").sort_values("size").memory_mib
    least, most = streaming.iloc[0], streaming.iloc[-1]
    shuffles = results.ratio("chance", "20 shuffles", "ours, 20 shuffles") - 1
    usual = results.ratio("held out", "all", SUMS[0])
    by_pair = results.ratio("held out", "linear", "scikit-learn Ridge, pair by pair")
    rows = [
        ("held-out comparison, four mappings", "packages, pair by pair", "speed-up", usual, ">=", 8),
        ("held-out ridge regression", "scikit-learn, pair by pair", "speed-up", by_pair, ">=", 10),
        ("held-out comparison, four mappings", "its floor", "time over floor", ours_by_floor["held out"], "<=", 1.5),
        ("each in-sample metric", f"{closest.side}, the closest", "speed-up", closest.ratio, ">=", 1),
        ("four in-sample metrics", "its floor", "time over floor", ours_by_floor["in sample"], "<=", 1.5),
        ("ridge with 17 penalties", himalaya.idxmin(), "speed-up", himalaya.min(), ">=", 10),
        ("ridge with 17 penalties", sklearn.idxmin(), "speed-up", sklearn.min(), ">=", 10),
        ("memory in a stream", "that of the fewest stimuli", "ratio", most / least, "<=", 1.1),
        ("20 shuffles for chance", "one comparison", "time over it", shuffles, "<=", 4),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["work", "against", "measure", "found", "sign", "aim"])
    table["met"] = [
        found >= aim if sign == ">=" else found <= aim for found, sign, aim in table[["found", "sign", "aim"]].values
    ]
    return table


# --- words and tables ------------------------------------------------------------------------------


def of_targets(table: pd.DataFrame) -> str:
    sign, verdict = {">=": "≥", "<=": "≤"}, {True: "met", False: "**missed**"}
    rows = [
        [row.work, row.against, row.measure, f"{row.found:.2f}", f"{sign[row.sign]} {row.aim:g}", verdict[row.met]]
        for row in table.itertuples()
    ]
    return markdown(["work", "against", "measure", "found", "aim", "verdict"], rows)


def of_times(results: Results, group: str) -> str:
    """Every side of a group: seconds, ratio, memory, agreement; sides that were not installed say so."""
    rows, before = [], None
    table = results.table[results.table.group == group]
    order = {work: i for i, work in enumerate(table.work.unique())}
    for row in table.sort_values("work", key=lambda works: works.map(order), kind="stable").itertuples():
        if row.work != before:
            rows.append([f"**{NAMES.get(row.work, row.work)}**", *[""] * 4])
            before = row.work
        if pd.isna(row.seconds):
            rows.append([f"{row.side}: {row.note}", *[""] * 4])
            continue
        times = "1" if row.side == "ours" else f"{row.ratio:.2g}" if row.ratio < 10 else f"{row.ratio:.0f}"
        agrees = "" if pd.isna(row.difference) else power(row.difference)
        memory = "" if row.kind == "floor" else f"{row.memory_mib:,.0f}"
        rows.append([row.side, f"{row.seconds:#.3g}".rstrip("."), times, memory, agrees])
    return markdown(["", "seconds", "times ours", "MiB", "differs by"], rows, numeric=4)


def power(value: float) -> str:
    """A small number in words of powers of ten."""
    if value == 0:
        return "0"
    digits, exponent = f"{value:.0e}".split("e")
    return f"{digits}\u00a0×\u00a010" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def bullets(lines: list[str], none: str) -> str:
    return "\n".join(f"- {line}" for line in lines) or none


def slower(results: Results) -> str:
    """Wherever another package takes less time than this library."""
    lines = []
    rows = results.table[(results.table.kind == "peer") & (results.table.ratio < 1)]
    for row in rows.itertuples():
        where = f" ({row.variable}: {row.size:,.0f})" if isinstance(row.variable, str) else ""
        other = "" if pd.isna(row.difference) or row.difference < SAME else "; its values are another estimate"
        lines.append(
            f"{row.group}, {NAMES.get(row.work, row.work)}{where}: {row.side} takes {row.ratio:.2f} of our time{other}."
        )
    return bullets(lines, "Nowhere in these tables.")


def missed(table: pd.DataFrame) -> str:
    lines = [
        f"{row.work}, against {row.against}: {row.measure} {row.found:.2f}." for row in table[~table.met].itertuples()
    ]
    return bullets(lines, "None is missed.")


def other_precision(results: Results) -> str:
    """The held-out ratios of runs in another precision, where there are any."""
    lines = []
    for dtype in results.every["dtype"].unique()[1:]:
        other = Results(results.every[results.every["dtype"] == dtype])
        usual, best = (other.ratio("held out", "all", name) for name in SUMS)
        lines.append(f"In {dtype} these are {usual:.1f} and {best:.1f} times.")
    return " ".join(lines)


def values(table: pd.DataFrame) -> dict:
    """Everything that the page can ask for, by name."""
    results = Results(table)
    aims = targets(results)
    found = {
        "targets": of_targets(aims),
        "n_met": int(aims.met.sum()),
        "n_targets": len(aims),
        "missed": missed(aims),
        "slower": slower(results),
        "other_precision": other_precision(results),
        "provenance": provenance(table.attrs["provenance"]),
        "usual": results.ratio("held out", "all", SUMS[0]),
        "best": results.ratio("held out", "all", SUMS[1]),
        "stacked": results.ratio("held out", "linear", "scikit-learn Ridge, targets stacked"),
        "by_pair": results.ratio("held out", "linear", "scikit-learn Ridge, pair by pair"),
        "shuffles": results.ratio("chance", "20 shuffles", "ours, 20 shuffles") - 1,
        "with_chance": results.ratio("chance", "20 shuffles", "ours, 20 shuffles"),
        "batches": results.ratio("in sample", "cka_debiased", "pytorch-cka, batches of 256"),
        "n_stimuli": int(results.of("held out").n_stimuli.iloc[0]),
        "n_layers": int(results.of("held out").n_layers.iloc[0]),
        "n_pairs": int(results.of("held out").n_pairs.iloc[0]),
    }
    for group in ("held out", "in sample", "nested"):
        found[group.replace(" ", "_")] = of_times(results, group)
        agree = results.of(group).query("kind == 'peer' and difference < @SAME")
        found[f"agreement_{group.replace(' ', '_')}"] = power(agree.difference.max())
    batches = results.of("in sample", "cka_debiased").query("side == 'pytorch-cka, batches of 256'").difference
    found["batches_difference"] = float(batches.iloc[0])
    memory = results.of("memory").set_index(["side", "size"]).memory_mib
    for name, side in (("streaming", "ours, streaming"), ("held", "activations held")):
        found[f"{name}_few"], found[f"{name}_many"] = memory[side].iloc[0], memory[side].iloc[-1]
    found["few"], found["many"] = memory["activations held"].index[[0, -1]].astype(int)
    return found


# --- figures ---------------------------------------------------------------------------------------


def parts(table: pd.DataFrame) -> plt.Figure:
    """Seconds of every side, a row a piece of work: held out above, in sample below."""
    results = Results(table)
    counts = [results.of(group).work.nunique() for group in ("held out", "in sample")]
    size = (plots.WIDTH, 1.6 + 0.36 * sum(counts))
    figure, axes = plt.subplots(2, 1, figsize=size, sharex=True, height_ratios=counts, layout="constrained")
    for ax, group in zip(axes, ("held out", "in sample"), strict=True):
        works = list(results.of(group).work.unique())
        for i, work in enumerate(works):
            rows = results.of(group, work)
            peers = rows[rows.kind == "peer"]
            ax.plot([rows.seconds.min(), rows.seconds.max()], [i, i], color=plots.GREY, lw=0.8, alpha=0.5, zorder=1)
            same = peers[peers.difference < SAME]
            drawn = (
                (rows[rows.kind == "floor"], {"marker": "|", "color": plots.GREY, "s": 160, "label": "floor"}),
                (same, {"marker": "s", "color": plots.PALETTE[1], "s": 36, "label": "other packages"}),
                (peers.drop(same.index), {"marker": "s", "edgecolor": plots.PALETTE[1], "facecolor": "none", "s": 36}),
                (rows[rows.side == "ours"], {"marker": "o", "color": plots.PALETTE[0], "s": 48, "label": "ours"}),
            )
            for points, look in drawn:
                ax.scatter(points.seconds, [i] * len(points), zorder=2, linewidths=1.5, **look)
        ax.set(xscale="log", yticks=range(len(works)), yticklabels=[NAMES.get(work, work) for work in works])
        ax.set_ylim(len(works) - 0.5, -0.5)
        ax.set_title(group, loc="left")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    axes[1].set_xlabel("seconds")
    shown = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
    return figure


def growth(table: pd.DataFrame) -> plt.Figure:
    """Seconds against stimuli, units and layers, and memory against stimuli; ours solid, others dashed."""
    results = Results(table)
    figure, axes = plt.subplots(2, 2, figsize=(plots.WIDTH, 5.6), layout="constrained")
    rows = results.of("growth")
    lines = {}
    for ax, variable in zip(axes.flat, ("stimuli", "units", "layers"), strict=False):
        for colour, work in zip(plots.PALETTE, rows.work.unique(), strict=False):
            for kind, style in (("ours", "-"), ("peer", "--")):
                curve = rows[(rows.variable == variable) & (rows.work == work) & (rows.kind == kind)]
                look = {"color": colour, "ls": style, "marker": "o", "ms": 3.5}
                [line] = ax.plot(curve["size"], curve.seconds, **look)
                if kind == "ours":
                    lines[NAMES[work].split(",")[0]] = line
        ax.set(xscale="log", yscale="log", ylabel="seconds" if variable != "units" else "")
        _sizes(ax, rows[rows.variable == variable]["size"])
        ax.set_xlabel("layers of each network" if variable == "layers" else variable)
    ax = axes[1, 1]
    for side, style in (("ours, streaming", "-"), ("activations held", "--")):
        curve = results.of("memory").query("side == @side")
        ax.plot(curve["size"], curve.memory_mib, color=plots.GREY, ls=style, marker="o", ms=3.5)
        where = curve[["size", "memory_mib"]].iloc[len(curve) // 2]
        ax.annotate(side.removeprefix("ours, "), where, xytext=(-6, 7), textcoords="offset points", ha="right")
    ax.set(xscale="log", yscale="log", xlabel="stimuli", ylabel="MiB")
    _sizes(ax, results.of("memory")["size"])
    handles = {
        **lines,
        "ours": plt.Line2D([], [], color=plots.GREY),
        "other packages": plt.Line2D([], [], color=plots.GREY, ls="--"),
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def _sizes(ax, sizes: pd.Series) -> None:
    """Every second size as a tick, in thousands where there are."""
    shown = sorted(sizes.unique())[::2]
    ax.set_xticks(shown, [f"{size / 1000:.0f}k" if size >= 1000 else f"{size:.0f}" for size in shown])
    ax.minorticks_off()


def main(folder: Path) -> None:
    table, about = published.read("benchmarks")
    table.attrs = about
    page = folder / "benchmarks.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), values(table)), encoding="utf-8")
    plots.use_style()
    for name, draw in (("parts", parts), ("growth", growth)):
        figure = draw(table)
        figure.savefig(folder / f"benchmarks_{name}.png")
        plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
