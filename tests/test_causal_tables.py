"""Tables of sweeps hold what networks tell, and are published without touching each other."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from convergent import causal, causal_plans, causal_sweep, causal_tables, weights
from convergent.causal import Condition, Setting
from convergent.training import Recipe
from tiny import dataset

pytestmark = pytest.mark.smoke
RECIPE = Recipe(1, 16, "adam", 0.01, weight_decay=0.0, crop=0, flip=False)
COMMAND = "python -m convergent.causal --dataset tiny --architecture cnn6"
PUSHES = {("gabor", "layer1"): (-1.0, 0.0, 1.0)}


@pytest.fixture
def setting(monkeypatch):
    """Tiny images in place of any image set."""
    monkeypatch.setattr(causal.images, "load", lambda name, *args: replace(dataset(), title=name.title()))
    return Setting("tiny", "cnn6", 0.2, RECIPE, 96, 48, 48, 16)


@pytest.fixture
def swept(setting, tmp_path):
    """A table, and the folder of its networks."""
    runs = causal_sweep.conditions(PUSHES, range(1), controls=())
    return causal_sweep.sweep(runs, setting, tmp_path / "kept", progress=False), tmp_path / "kept"


def test_a_table_is_completed_from_its_networks(setting, swept):
    table, kept = swept
    found = causal_tables.completed(table, setting, kept)
    network = causal_sweep.network_of(Condition("gabor", "layer1", -1.0), setting, kept)
    expected = weights.orientation_selectivity(weights.first_filters(network)).mean()
    assert found.set_index("alpha").orientation[-1.0] == pytest.approx(expected)
    assert set(found.chance.round(4)) == {0.3333}
    assert set(found.score) == {"accuracy"}


def test_filters_are_those_of_the_networks_and_only_where_the_first_layer_is_pushed(setting, swept):
    table, kept = swept
    sheets = causal_tables.sheets(causal_tables.first_filters(table, setting, kept))
    assert list(sheets) == [-1, 0, 1]
    network = causal_sweep.network_of(Condition("gabor", "layer1", 1.0), setting, kept)
    assert torch.allclose(sheets[1.0], weights.first_filters(network), atol=1e-6)
    assert causal_tables.first_filters(table.assign(layer="layer2"), setting, kept).empty


def test_a_published_table_replaces_only_its_own_rows(setting, swept, tmp_path, monkeypatch):
    table, kept = swept
    folder = tmp_path / "data" / "published"
    path = causal_tables.publish(table, setting, kept, folder, COMMAND)
    own = pd.read_csv(path).assign(reference="npz:mine.npz")
    pd.concat([pd.read_csv(path), own]).to_csv(path, index=False)
    causal_tables.publish(table, replace(setting, dataset="other"), _again(setting, kept), folder, COMMAND)
    causal_tables.publish(table.assign(accuracy=0.75), setting, kept, folder, COMMAND)
    monkeypatch.setattr(causal_tables.paths, "data", lambda: tmp_path / "data")
    found = causal_tables.published_runs()
    assert list(found) == ["Other", "Tiny"]
    assert found["Tiny"].groupby("reference").accuracy.agg(list)["gabor"] == [0.75] * 3
    assert found["Tiny"].groupby("reference").accuracy.agg(list)["npz:mine.npz"] == own.accuracy.tolist()
    assert found["Other"].accuracy.tolist() == table.accuracy.round(6).tolist()
    assert list(causal_tables.published_runs("filters")) == ["Other", "Tiny"]


def _again(setting, kept):
    """The same networks, kept as those of another image set."""
    other = replace(setting, dataset="other")
    for alpha in (-1.0, 0.0, 1.0):
        run = Condition("gabor", "layer1", alpha)
        (kept / run.key(setting)).rename(kept / run.key(other))
        (kept / run.key(setting)).symlink_to(kept / run.key(other))
    return kept


def test_every_image_set_and_architecture_has_a_provenance_of_its_own(setting, swept, tmp_path):
    table, kept = swept
    path = causal_tables.publish(table, setting, kept, tmp_path, COMMAND)
    about = json.loads(path.with_suffix(".json").read_text())
    assert path.name == "causal_sweep_cnn6.csv"
    assert list(about) == ["Tiny"]
    assert about["Tiny"]["repeat"] == COMMAND
    assert about["Tiny"]["data"].startswith("Tiny, SHA-256")
    assert causal_tables.as_a_name("torchvision:alexnet?weights=random") == "torchvision-alexnet-weights-random"


def test_where_nothing_was_published_there_is_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(causal_tables.paths, "data", lambda: tmp_path)
    assert causal_tables.published_runs() == {}


def test_a_sweep_of_ones_own_leaves_the_books_tables_alone_and_says_how_it_was_made(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(causal_plans, "Setting", lambda *told: setting)
    monkeypatch.setattr(causal_plans, "SEEDS", 1)
    monkeypatch.setattr(causal_plans, "pushes", lambda *told: PUSHES)
    monkeypatch.setattr(causal_plans.paths, "data", lambda: tmp_path / "data")
    books, kept = tmp_path / "data" / "published", ["--folder", str(tmp_path / "kept")]
    assert causal_plans.main(["--dataset", "tiny", *kept]) == 0
    before = {path.name: path.read_bytes() for path in books.iterdir()}
    own = ["--reference", "gabor", "--layer", "layer1", "--alphas", "-0.5", "1"]
    for options in (own, ["--seeds", "2"], ["--metric", "cka"], ["--no-controls"]):
        assert causal_plans.main(["--dataset", "tiny", *kept, *options]) == 0
        about = json.loads((tmp_path / "kept" / "causal_sweep_cnn6.json").read_text())["Tiny"]
        assert about["repeat"] == " ".join([COMMAND, *options])
    assert {path.name: path.read_bytes() for path in books.iterdir()} == before
    assert causal_plans.main(["--dataset", "tiny", *kept, "--no-controls", "--publish", str(books)]) == 0
    assert len(pd.read_csv(books / "causal_sweep_cnn6.csv")) == 3
