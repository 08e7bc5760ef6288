"""Statistics of sweeps agree with known answers, and figures show what tables say."""

from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from convergent import causal_claims, causal_plans, gabor, plots, plots_causal
from convergent.causal_claims import ALIGNED, ALONE, MISALIGNED

pytestmark = pytest.mark.smoke
GABOR = causal_claims.PUSHES["gabor", "layer1"]
ALPHAS = (-5.0, -0.1, 0.0, 0.1, 5.0)
CURVE = dict(zip(ALPHAS, ((0.0, 0.6), (0.1, 0.7), (0.3, 0.75), (0.5, 0.74), (0.9, 0.7)), strict=True))


def sweep(seeds=3, pushes=(("gabor", "layer1"),), bonus=0.01):
    """A table whose accuracy is that of `CURVE`, and higher by `bonus` for each seed; controls lose 0.02 and 0.01."""
    rows = []
    for reference, layer in pushes:
        for seed in range(seeds):
            about = {"reference": reference, "layer": layer, "beta": 1.0, "seed": seed, "norm": 2.0, "dead": 0.1}
            about |= {"dimension": 5.0, "score": "accuracy", "chance": 0.1, "task_share": 0.9}
            for alpha, (alignment, accuracy) in CURVE.items():
                scores = {"alignment": alignment, "procrustes": -alignment, "cka": alignment**2}
                own = {"alpha": alpha, "control": "none", "accuracy": accuracy + bonus * seed, "orientation": alignment}
                rows.append(about | own | scores)
                for control, lost in (("shuffled", 0.02), ("step size", 0.01)):
                    if abs(alpha) == 5:
                        rows.append(about | own | scores | {"control": control, "accuracy": 0.75 + bonus * seed - lost})
    return pd.DataFrame(rows)


def test_a_push_is_left_only_where_it_costs_more_than_both_controls_and_above_the_floor():
    found = causal_claims.sieve({"here": sweep()}).iloc[0]
    assert (found.run, found.push) == ("here", GABOR)
    assert found[["costs", "shuffled", "step size", "left"]].all()
    # Shuffled 0.73 + 0.01 on average, the task alone 0.75 + 0.01, guessing 0.1.
    assert found.above_guessing == pytest.approx(0.64 / 0.66)

    one_seed_better = sweep()
    chosen = (one_seed_better.alpha == -5) & (one_seed_better.control == "none") & (one_seed_better.seed == 2)
    one_seed_better.loc[chosen, "accuracy"] = 0.755  # more than its shuffled twin, less than the others
    found = causal_claims.sieve({"here": one_seed_better}).iloc[0]
    assert found[["costs", "shuffled", "step size", "left"]].tolist() == [True, False, True, False]

    at_guessing = sweep()
    low = (at_guessing.alpha == -5) & (at_guessing.control != "step size")
    at_guessing.loc[low, "accuracy"] = np.where(at_guessing.control[low] == "none", 0.1, 0.12)
    found = causal_claims.sieve({"here": at_guessing}).iloc[0]
    assert found[["costs", "shuffled", "step size"]].all()
    assert not found.left


def test_the_sieve_says_which_control_was_not_made_and_leaves_out_what_was_only_promoted():
    without = sweep().query("control != 'step size'")
    found = causal_claims.sieve({"here": without}).iloc[0]
    assert found["step size"] is None
    assert not found.left
    assert causal_claims.sieve({"here": sweep().query("alpha >= 0")}).empty


# --- statistics --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=4, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_rank_correlation_is_spearmans(points):
    table = pd.DataFrame(points, columns=["alignment", "accuracy"]).assign(seed=0)
    rho, p = causal_claims.rank_correlation(table, permutations=19)
    if table.alignment.nunique() == 1 or table.accuracy.nunique() == 1:
        assert np.isnan(rho)
        assert np.isnan(p)
    else:
        assert rho == pytest.approx(stats.spearmanr(table.alignment, table.accuracy).statistic)
        assert 1 / 20 <= p <= 1


def test_p_is_the_share_of_all_orders_that_give_as_much():
    table = pd.DataFrame({"alignment": [1, 2, 3, 4, 5], "accuracy": [1, 2, 3, 5, 4], "seed": 0})
    every = [stats.spearmanr(table.alignment, order).statistic for order in permutations(table.accuracy)]
    exact = np.mean(np.abs(every) >= 0.9 - 1e-12)
    rho, p = causal_claims.rank_correlation(table, permutations=20_000)
    assert rho == pytest.approx(0.9)
    assert p == pytest.approx(exact, abs=0.01)


def test_seeds_that_differ_are_no_evidence():
    """Within a seed accuracy has nothing to do with alignment; between seeds both rise."""
    rng = np.random.default_rng(0)
    rows = [(seed, seed + 0.01 * a, seed + 0.01 * b) for seed in range(3) for a, b in rng.random((9, 2))]
    table = pd.DataFrame(rows, columns=["seed", "alignment", "accuracy"])
    rho, p = causal_claims.rank_correlation(table)
    assert rho > 0.8
    assert p > 0.05
    assert causal_claims.rank_correlation(table.assign(seed=0))[1] < 0.001


def test_unrelated_runs_are_called_related_in_one_case_of_twenty():
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        table = pd.DataFrame(rng.random((27, 2)), columns=["alignment", "accuracy"]).assign(seed=np.arange(27) % 3)
        found.append(causal_claims.rank_correlation(table, permutations=199)[1] < 0.05)
    assert np.mean(found) == pytest.approx(0.05, abs=0.03)


def test_branches_share_the_task_alone_and_leave_controls_out():
    found = causal_claims.correlations(sweep(bonus=0.0), permutations=99).set_index(["branch", "metric"])
    assert found.n_runs["all runs", "alignment"] == 15
    assert found.n_runs["suppressing", "alignment"] == found.n_runs["promoting", "alignment"] == 9
    assert found.rho["suppressing", "alignment"] == pytest.approx(1)
    assert found.rho["promoting", "alignment"] == pytest.approx(-1)
    assert found.rho["suppressing", "procrustes"] == pytest.approx(-1)
    assert found.p["suppressing", "alignment"] <= 0.05


def test_a_metric_that_was_not_measured_has_no_row():
    found = causal_claims.correlations(sweep().drop(columns="cka").assign(procrustes=np.nan), permutations=9)
    assert set(found.metric) == {"alignment"}


def test_costs_are_differences_within_a_seed():
    """Seeds differ by ten times as much as conditions, and the intervals do not show it."""
    found = causal_claims.costs(sweep(bonus=0.5)).set_index(["end", "control"])
    for column in ("mean", "low", "high"):
        assert found[column][MISALIGNED, "none"] == pytest.approx(-0.15)
        assert found[column][ALIGNED, "none"] == pytest.approx(-0.05)
        assert found[column][MISALIGNED, "shuffled"] == pytest.approx(-0.02)
        assert found[column][ALIGNED, "step size"] == pytest.approx(-0.01)
    assert set(found.n_seeds) == {3}


def test_the_interval_over_seeds_is_students_and_one_seed_has_none():
    values = [0.1, 0.3, 0.2, 0.6]
    mean, low, high = causal_claims.over_seeds(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (mean, low, high) == pytest.approx((0.3, expected.low, expected.high))
    assert np.isnan(causal_claims.over_seeds([0.1])[1:]).all()


def test_ends_are_the_strongest_pushes_whatever_alignment_they_reached():
    table = sweep()
    table.loc[table.alpha == -0.1, "alignment"] = -0.5
    found = causal_claims.reached(table).loc[GABOR]
    assert found.to_dict() == pytest.approx({MISALIGNED: 0.0, ALONE: 0.3, ALIGNED: 0.9})
    one_sided = causal_claims.reached(table[table.alpha >= 0]).loc[GABOR]
    assert np.isnan(one_sided[MISALIGNED])


def test_claims_are_weighed_by_seed_and_marked_where_nothing_was_run():
    conditions = {"a run": causal_claims.conditions(sweep()), "another": causal_claims.conditions(sweep()).iloc[:0]}
    row = causal_claims.weigh("causal_gabor_ends", conditions)
    assert row["a run: verdict"] == "reproduced"
    assert row["a run"].endswith("in 3 of 3 networks")
    assert row["another"] == "not made"
    assert "another: verdict" not in row
    assert row["runs"]["a run"]["n_independent"] == 3
    away = causal_claims.weigh("controls_gabor_towards", conditions)
    assert away["a run: verdict"] == "not reproduced"


def test_costs_of_two_pushes_are_compared_in_networks_that_both_have():
    both = [("trained", "layer1"), ("trained", "layer5")]
    first, fifth = (causal_claims.PUSHES[push] for push in both)
    table = sweep(pushes=both)
    table.loc[(table.layer == "layer5") & (table.alpha == -5) & (table.control == "none"), "accuracy"] += 0.1
    table = table[(table.layer == "layer1") | (table.seed < 2)]
    found = causal_claims.conditions(table)
    row = causal_claims.weigh("causal_layers_cost", {"a run": found})
    assert row["a run"].endswith("in 2 of 2 networks")
    assert f"cost of misalignment ({first}) 0.15" in row["a run"]
    each = found.set_index(["push", "network", "condition"]).value
    assert each[first, 0, "cost per R² given up"] == pytest.approx(0.15 / 0.3)
    assert each[first, 0, "r of accuracy with alignment, suppressing"] == pytest.approx(1)


def test_every_push_of_the_published_sweeps_has_a_name_and_others_get_one():
    planned = [pushed for name in ("cnn6", "resnet18") for pushed in causal_plans.pushes(name)]
    assert sorted(planned) == sorted(causal_claims.PUSHES)
    own = causal_claims.named(sweep(pushes=[("npz:/a/b/mine.npz", "layer3"), ("gabor", "layer1")]))
    assert list(dict.fromkeys(own.push)) == [GABOR, "mine.npz, layer3"]


# --- figures -----------------------------------------------------------------------------------------


@pytest.fixture
def _house_style():
    plots.use_style()
    yield
    plt.close("all")


def points(ax, marker):
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in ax.lines
            if line.get_marker() == marker and len(line.get_xdata()) == 1]  # fmt: skip


@pytest.mark.usefixtures("_house_style")
def test_the_curve_shows_means_over_seeds_controls_and_chance():
    [ax] = [ax for ax in plots_causal.pareto({"a run": sweep()}).axes if ax.get_visible()]
    expected = [(x, y + 0.01) for x, y in CURVE.values()]
    np.testing.assert_allclose(sorted(points(ax, "o") + points(ax, "*")), sorted(expected))
    np.testing.assert_allclose(points(ax, "*"), [(0.3, 0.76)])
    assert len(points(ax, "s")) == len(points(ax, "^")) == 2
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert {float(line.get_ydata()[0]) for line in dashed} >= {0.1}
    assert {text.get_text() for text in ax.texts} == {"−5", "5"}


@pytest.mark.usefixtures("_house_style")
def test_panels_that_were_not_run_say_so():
    tables = {"one": sweep(pushes=[("gabor", "layer1"), ("trained", "layer1")]), "two": sweep()}
    figure = plots_causal.pareto(tables)
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.axes[3].texts] == ["not made"]


@pytest.mark.usefixtures("_house_style")
def test_ends_lie_at_their_costs():
    [ax] = plots_causal.ends({"a run": sweep()}).axes
    assert sorted(x for x, _ in points(ax, "o")) == pytest.approx([-0.15, -0.05])
    assert sorted(x for x, _ in points(ax, "s")) == pytest.approx([-0.02, -0.02])


@pytest.mark.usefixtures("_house_style")
def test_rank_correlations_are_filled_where_chance_rarely_gives_as_much():
    figure = plots_causal.rank_correlations({"a run": sweep(bonus=0.0)}, permutations=199)
    [line] = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert line.get_xdata()[0] == pytest.approx(1)
    assert line.get_markerfacecolor() != "none"
    figure = plots_causal.rank_correlations({"a run": sweep(seeds=1)}, permutations=199)
    [line] = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert line.get_markerfacecolor() == "none", "three runs prove nothing"


@pytest.mark.usefixtures("_house_style")
def test_states_are_relative_to_the_task_alone():
    figure = plots_causal.states({"a run": sweep()})
    norms = [line for line in figure.axes[0].lines if len(line.get_ydata()) == len(ALPHAS)]
    assert norms[0].get_ydata() == pytest.approx([1] * len(ALPHAS))


@pytest.mark.parametrize(
    ("alphas", "shown"),
    [
        ([-5, -0.5, -0.1, -0.02, 0, 0.02, 0.1, 0.5, 5], [-5, -0.1, 0, 0.1, 5]),
        ([-5, -0.1, 0, 0.1, 5], [-5, -0.1, 0, 0.1, 5]),
        ([-5, 0, 5], [-5, 0, 5]),
        ([0, 1], [0, 1]),
    ],
)
def test_five_conditions_are_shown_at_most(alphas, shown):
    assert plots_causal.five(alphas) == shown


@pytest.mark.usefixtures("_house_style")
def test_filters_stand_beside_the_bank_and_the_drawing_has_no_background():
    figure = plots_causal.filters({alpha: torch.randn(6, 3, 5, 5) for alpha in ALPHAS}, gabor.GaborBank(16).filters)
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes]
    assert titles == [MISALIGNED, "misaligned", ALONE, "aligned", ALIGNED, "Gabor bank"]
    assert plots_causal.framework().get_facecolor()[3] == 0
