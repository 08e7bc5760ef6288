"""Chapter 10: its claims compare what they say, and it runs with somebody else's networks."""

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from safetensors.torch import save_file

from conftest import ROOT
from convergent import claims, encoding_claims, encoding_tables, networks, paths, plots_weights
from convergent import encoding_activations as activations
from convergent import encoding_networks as members
from convergent import encoding_truncation as truncation
from convergent import interactive_weights as clouds
from convergent.encoding_similarity import ALIGNED, UNALIGNED
from convergent.results import read_records
from convergent.weight_similarity import bures_cosine

smoke = pytest.mark.smoke
LAYERS = [f"layer{i}" for i in range(1, 7)]


def similarities(values, condition=ALIGNED, error=0.01, ceiling=0.8):
    """role -> value, or one value a layer; one pair of networks a role."""
    rows = [
        {"a": f"{role} a", "b": f"{role} b", "kind": role, "role": role, "layer": layer, "condition": condition}
        | {"value": np.broadcast_to(value, 6)[i], "error": error, "ceiling": ceiling}
        for role, value in values.items()
        for i, layer in enumerate(LAYERS)
    ]
    return pd.DataFrame(rows)


def verdicts(table, high, low):
    row = claims.weigh("a claim", "somebody", {"run": table}, high, low)
    return row["run: verdict"]


# --- claims ------------------------------------------------------------------------------------------


@smoke
def test_alignment_is_weighed_layer_by_layer_without_the_first():
    aligned = similarities({members.SAME: [0.0, 0.6, 0.6, 0.6, 0.6, 0.1]})
    plain = similarities({members.SAME: 0.2}, UNALIGNED)
    table = encoding_claims.by_layer(pd.concat([aligned, plain]))
    assert len(table[table.condition == ALIGNED]) == 5
    assert verdicts(table, ALIGNED, UNALIGNED) == "partly"
    assert verdicts(table, ALIGNED, encoding_claims.HALF) == "partly"
    assert verdicts(table, ALIGNED, encoding_claims.CHANCE) == "reproduced"


@smoke
def test_similarity_across_images_may_fade_or_not():
    falling, level = ({members.ACROSS: values} for values in (np.linspace(0.9, 0.1, 6), [0.3, 0.2, 0.3, 0.4, 0.3, 0.3]))
    first, second = encoding_claims.FIRST_HALF, encoding_claims.SECOND_HALF
    assert verdicts(encoding_claims.fading(similarities(falling)), first, second) == "reproduced"
    assert verdicts(encoding_claims.fading(similarities(level)), first, second) == "not reproduced"
    assert len(encoding_claims.fading(similarities({members.SAME: 0.5}))) == 0
    assert len(encoding_claims.by_layer(similarities({members.SAME: 0.5}), members.ACROSS)) == 0


@smoke
def test_labels_are_weighed_by_layer():
    values = {members.SAME: 0.6, members.RANDOMS: 0.5, members.TRUE_RANDOM: [0, 0.4, 0.4, 0.4, 0.6, 0.4]}
    table = encoding_claims.labels(similarities(values | {members.FEW_TRUE: 0.3}))
    assert verdicts(table, members.RANDOMS, members.TRUE_RANDOM) == "partly"
    assert verdicts(table, members.FEW_TRUE, members.TRUE_RANDOM) == "not reproduced"


def dimensions(ranks):
    """(task, seed, classes) -> effective rank of each layer."""
    rows = [
        {"network": f"{task}, seed {seed}", "task": task, "seed": seed, "classes": n, "layer": layer}
        | {"effective_rank": value}
        for (task, seed, n), values in ranks.items()
        for layer, value in zip(LAYERS, values, strict=True)
    ]
    return pd.DataFrame(rows)


@smoke
def test_dimension_is_compared_between_halves_and_between_numbers_of_classes():
    up, down = [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]
    table = dimensions({("ten", 0, 10): up, ("ten", 1, 10): up, ("five", 0, 5): [1] * 6, ("five", 1, 5): [1] * 6})
    first, second = encoding_claims.FIRST_HALF, encoding_claims.SECOND_HALF
    assert verdicts(encoding_claims.growing(dimensions({("ten", 0, 10): up})), second, first) == "reproduced"
    assert verdicts(encoding_claims.growing(dimensions({("ten", 0, 10): down})), second, first) == "not reproduced"
    more = encoding_claims.classes(table)
    assert set(more.pair) == {"ten and five, seed 0", "ten and five, seed 1"}
    assert verdicts(more, "more classes", "fewer classes") == "reproduced"
    assert len(encoding_claims.classes(dimensions({("ten", 0, 10): up, ("other ten", 0, 10): down}))) == 0


@smoke
def test_most_of_the_accuracy_is_nine_tenths_above_guessing():
    rows = [(0, "factorised", 0.82, 0.1), (0, "plain", 0.9, 0.1), (1, "factorised", 0.81, 0.1), (1, "plain", 0.9, 0.1)]
    table = encoding_claims.accuracies(pd.DataFrame(rows, columns=["seed", "network", "accuracy", "guess"]))
    assert table.groupby("condition").value.mean()["nine tenths of plain"] == pytest.approx(0.72)
    # 0.72 and 0.71 of 0.80 above guessing: the one equals nine tenths, the other lies below.
    assert verdicts(table, "factorised", "nine tenths of plain") != "reproduced"


@smoke
def test_leading_directions_need_five_base_levels():
    rows = [
        {"kind": "k", "role": members.SAME, "condition": condition, "layer": layer, "rank": rank, "base": 0.05}
        | {"c1": value if rank == 1 else 0.9, "c2": 0.01}
        for condition, value in ((ALIGNED, 0.4), (UNALIGNED, 0.1))
        for layer in LAYERS
        for rank in (1, 2)
    ]
    table = encoding_claims.leading(pd.DataFrame(rows))
    assert verdicts(table, ALIGNED, "5 base levels") == "reproduced"
    assert verdicts(table, "5 base levels", UNALIGNED) == "reproduced"


@smoke
def test_half_way_lies_between_fresh_and_trained_neurons():
    values = {activations.OUTPUTS: 0.8, activations.FRESH: 0.4, activations.LEARNED: 0.7, activations.INPUTS: 0.9}
    rows = [
        {"a": "0", "b": "1", "role": members.SAME, "metric": "procrustes", "layer": layer, "condition": name}
        | {"value": value}
        for layer in LAYERS
        for name, value in values.items()
    ]
    table = encoding_claims.explained(pd.DataFrame(rows))
    assert table[table.condition == "half way"].value.to_numpy() == pytest.approx(0.6)
    assert verdicts(table, activations.LEARNED, "half way") == "reproduced"


@smoke
def test_rank_correlation_of_what_does_not_vary_is_zero():
    table = pd.DataFrame({"x": [1.0, 2, 3], "y": [2.0, 4, 9], "z": [1.0, 1, 1]})
    assert encoding_claims.rank_correlation(table, "x", "y") == pytest.approx(1)
    assert encoding_claims.rank_correlation(table, "x", "z") == 0


# --- tables and figures ------------------------------------------------------------------------------


@smoke
def test_what_was_neither_measured_nor_published_is_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "data", lambda: tmp_path)
    monkeypatch.delenv("CONVERGENT_PUBLISHING", raising=False)
    assert encoding_tables.beside("images", None, "weights_training") == {}
    assert plots_weights.course({}).axes[0].texts, "the page says that there is nothing to see"


@smoke
@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_the_line_of_random_weights_has_their_mean(gamma):
    n = 500
    line = plots_weights.quantiles(gamma, n)
    assert (np.diff(line) <= 0).all()
    assert line.mean() == pytest.approx(max(gamma, 1), rel=0.01)  # the trace C_in over the eigenvalues above zero


@smoke
def test_the_figure_of_truncation_shows_each_layer_that_was_cut_and_all_of_them():
    about = {"network": "one", "guess": 0.1, "part": truncation.LEADING, "normalisation": truncation.KEPT}
    rows = [about | {"layer": truncation.ALL, "rank": -1, "agreed": False, "accuracy": 0.9}]
    for layer in ("layer2", "layer4", "layer6", truncation.ALL):
        rows += [about | {"layer": layer, "rank": k, "agreed": False, "accuracy": k / 10} for k in (1, 4)]
    agreed = pd.DataFrame({"layer": LAYERS, "agreed": [0, 5, 5, 5, 5, 5], "learned": 9})
    figure = plots_weights.truncations({"run": pd.DataFrame(rows)}, {"run": agreed})
    assert [ax.get_title() for ax in figure.axes] == ["layer2", "layer4", "layer6", truncation.ALL]
    assert all(ax.lines[1].get_ydata().tolist() == [0.1, 0.4] for ax in figure.axes)


@smoke
def test_the_schematic_ends_where_both_networks_coincide():
    made = clouds.problem()
    inputs, first = made["first"]
    others, second = made["second"]
    turn = clouds.partway(made["turn"], 1.0)
    np.testing.assert_allclose(turn, made["turn"], atol=1e-8)
    assert np.abs(inputs @ turn.T - others).mean() < 0.2
    covariance = [torch.from_numpy(rows.T @ rows) for rows in (first @ turn.T, second, first)]
    assert bures_cosine(covariance[0], covariance[1]) > 0.97
    assert bures_cosine(covariance[2], covariance[1]) < 0.9
    figure = clouds.alignment_problem()
    assert isinstance(figure, go.Figure)
    assert len(figure.frames) == clouds.STEPS


# --- the notebook ------------------------------------------------------------------------------------


def test_chapter_10_compares_two_networks_of_the_readers_own(builder, tmp_path):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, file in enumerate(files, start=11):
        save_file(networks.load("factorised_vgg", 7, 0.25, seed=seed).state_dict(), file)
    named = ",".join(f"checkpoint:{file}?architecture=factorised_vgg" for file in files)
    parameters = {"tier": "smoke", "networks": named}
    executed = builder.execute(ROOT, ROOT / "notebooks" / "10_channel_weights.ipynb", tmp_path, parameters)
    assert builder.missing_records(nbformat.read(executed, 4)) == []
    assert "your own × your own" in read_records(executed)["table_weights_similarity"]


def test_chapter_10_refuses_other_checkpoints_before_any_work(builder, tmp_path):
    notebook = ROOT / "notebooks" / "10_channel_weights.ipynb"
    with pytest.raises(builder.BuildError, match="names 1: give two"):
        builder.execute(ROOT, notebook, tmp_path, {"tier": "smoke", "networks": "mine.safetensors"})
