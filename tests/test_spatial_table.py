"""The published covariances can be read back, and filling the table resumes."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from convergent import networks, paths, published, spatial_layers, spatial_pairs, spatial_table, zoo
from convergent.spatial_table import Wanted

pytestmark = pytest.mark.smoke


def entry(seed, accuracy=0.75):
    record = {"title": "The cave, 4,000 images", "classes": list("abcdefghij"), "width": 0.25, "accuracy": accuracy}
    record["recipe"] = {"epochs": 3, "n_train": None}
    return SimpleNamespace(network=networks.load("cnn6", 10, 0.25, seed=seed), record=record, accuracy=accuracy)


WANTED = [Wanted("cnn6", "cave", labels, seed) for labels in ("true", "random") for seed in range(2)]


@pytest.fixture
def trained(monkeypatch):
    """Which networks were asked for; seed 1 of true labels is not here."""
    asked = []

    def give(wanted, tier):
        asked.append(wanted)
        if wanted == WANTED[1] and not zoo._may_train.get():
            raise zoo.NotTrainedError("it is nowhere")
        return entry(wanted.seed)

    monkeypatch.setattr(spatial_table, "_trained", give)
    return asked


@pytest.mark.parametrize("k", [3, 5, 7])
def test_a_covariance_comes_back_to_half_a_millionth(k):
    rows = np.random.default_rng(0).standard_normal((80, k * k))
    C = rows.T @ rows
    C /= np.trace(C)
    found = spatial_table.decode(spatial_table.encode(C))
    np.testing.assert_allclose(found, C, atol=0.5000001e-6)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("text", ["1 2 3", "1 2 3 4", " ".join("1" * 44)])
def test_a_covariance_that_was_cut_off_is_refused(text):
    with pytest.raises(ValueError, match="is the table cut off"):
        spatial_table.decode(text)


def test_filling_goes_on_where_it_was_and_leaves_rows_as_they_are(tmp_path, trained):
    path = tmp_path / "table.csv"
    assert spatial_table.fill(path, WANTED, only_cached=True) == [WANTED[1]]
    before = path.read_text().splitlines()
    assert len(before) == 1 + 3 * 6
    trained.clear()
    assert spatial_table.fill(path, WANTED) == []
    assert trained == [WANTED[1]]
    after = path.read_text().splitlines()
    assert set(before) <= set(after)
    table = pd.read_csv(path, dtype=published.WORDS)
    order = list(dict.fromkeys(zip(table.labels, table.seed, strict=True)))
    assert order == [(w.labels, w.seed) for w in WANTED]
    assert set(table.image_set) == {"The cave"}  # few images of a set are of the set
    trained.clear()
    spatial_table.fill(path, WANTED)
    assert trained == []
    told = json.loads(path.with_suffix(".json").read_text())["provenance"]
    assert told["repeat"] == "python -m convergent.spatial_table"


def test_a_killed_run_keeps_what_it_had(tmp_path, trained, monkeypatch):
    path, give = tmp_path / "table.csv", spatial_table._trained

    def killed(wanted, tier):
        if wanted == WANTED[2]:
            raise KeyboardInterrupt
        return give(wanted, tier)

    monkeypatch.setattr(spatial_table, "_trained", killed)
    with pytest.raises(KeyboardInterrupt):
        spatial_table.fill(path, WANTED)
    assert pd.read_csv(path).seed.nunique() == 2


def test_a_network_that_is_nowhere_is_not_trained_where_none_may_be(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path))
    with zoo.without_training(), pytest.raises(zoo.NotTrainedError, match="neither shipped nor in"):
        zoo.get("cnn6", "cave", [123], "smoke", progress=False)
    with zoo.without_training():
        assert zoo.get("cnn6", "cave", [0])[0].accuracy > 0.5  # shipped
    folder = next((tmp_path / "zoo").iterdir())
    with zoo.FileLock(folder / ".lock"), zoo.without_training(), pytest.raises(zoo.NotTrainedError, match="being tr"):
        zoo.get("cnn6", "cave", [123], "smoke", progress=False)


# --- what is published -------------------------------------------------------------------------------


def test_every_network_of_the_table_is_published():
    path = paths.data() / "published" / f"{spatial_table.NAME}.csv"
    assert published.missing(path, Wanted._fields, spatial_table.NETWORKS) == []


def test_published_covariances_are_covariances_and_their_networks_know_something():
    table = spatial_table.read()
    for row in table.itertuples():
        assert np.trace(row.covariance) == pytest.approx(1, abs=1e-4)
        assert np.linalg.eigvalsh(row.covariance)[0] > -1e-4
        assert len(row.covariance) == row.k**2
    known = table[table.labels == "true"]
    assert (known.accuracy > 1.5 / known.classes).all()
    assert not table.duplicated(["image_set", "labels", "architecture", "seed", "position"]).any()


def test_published_covariances_are_those_of_the_shipped_networks_before_and_after_training():
    table = spatial_table.read().query("architecture == 'cnn6' and dataset == 'cave' and seed == 0")
    [shipped] = zoo.get("cnn6", "cave", [0])
    for network, listed in ((shipped.network, table), (shipped.untrained, spatial_table.untrained(table))):
        again = spatial_layers.of_network(network, splits=0)
        assert len(listed) == len(again) == 6
        for one, two in zip(listed.covariance, again.covariance, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_published_comparisons_are_those_of_the_published_covariances():
    for title, layers in spatial_table.runs(spatial_table.read()).items():
        pairs, fits = (spatial_table.derived(name, title) for name in ("pairs", "forms"))
        units = {spatial_pairs.called(key) for key in spatial_pairs.networks(layers)}
        assert set(pairs[pairs.kind == spatial_pairs.LAYERS].unit) == units
        assert set(fits.unit) == units
        key, own = next(iter(spatial_pairs.networks(layers).items()))
        again = spatial_pairs.pairs(own.assign(trained=True), n=5)
        kept = pairs[pairs.unit == spatial_pairs.called(key)]
        for kind in (spatial_pairs.LAYERS, spatial_pairs.FIRST):
            one, two = (t[t.kind == kind].value.to_numpy() for t in (again, kept))
            np.testing.assert_allclose(one, two, atol=1e-3)
