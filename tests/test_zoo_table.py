"""The table of trained networks, and the page that shows it."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from conftest import ROOT
from convergent import paths, published, zoo, zoo_table
from tiny import RECIPE, dataset

PAGE = (ROOT / "book" / "networks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table():
    return published.read("networks")[0]


def test_a_row_says_what_the_network_is_and_how_it_came_about(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    data = dataset()
    [entry] = zoo.get("cnn6", data, [3], recipe=RECIPE, width=0.25, trajectory=True, progress=False)
    row = zoo_table.summary(entry)
    assert (row["image_set"], row["width"], row["classes"]) == ("Tiny", 0.25, 3)
    assert (row["epochs"], row["batch_size"], row["steps"]) == (2, 16, 12)
    assert row["weights"] == sum(p.numel() for p in entry.network.parameters())
    assert row["test_accuracy"] == entry.accuracy
    assert row["train_accuracy"] == entry.history.train_accuracy.iloc[-1]
    assert row["chance"] == pytest.approx(1 / 3)
    assert row["through_training"]
    assert data.hash.startswith(row["images_sha256"])


@pytest.mark.smoke
def test_filling_adds_what_the_table_lacks_in_the_order_asked_and_leaves_rows_as_they_are(
    tmp_path, capsys, monkeypatch
):
    path, cnn6 = tmp_path / "networks.csv", ("cnn6", "cifar10", "true", 1, True)
    zoo_table.fill(path, [cnn6])
    first = pd.read_csv(path, dtype=published.WORDS).assign(minutes=-1.0)
    first.to_csv(path, index=False)
    wanted = [("resnet18", "cave", "true", 0, False), ("factorised_vgg", "cave", "random", 1, False), cnn6]
    zoo_table.fill(path, wanted)
    found = pd.read_csv(path, dtype=published.WORDS)
    assert found[zoo_table.KEY].values.tolist() == [list(key) for *key, _ in wanted]
    assert found.minutes.iloc[2] == -1, "a row that is there is left alone"
    assert list(found.image_set) == ["The cave", "The cave, 3,000 images", "CIFAR-10 (JPEG copy)"]
    assert "resnet18, cave, true, 0: " in capsys.readouterr().out
    before = path.read_bytes()
    monkeypatch.setattr(zoo_table, "trained", lambda *asked: pytest.fail("nothing is missing"))
    zoo_table.fill(path, wanted)
    assert path.read_bytes() == before


@pytest.mark.smoke
@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_command_with_nothing_to_add_says_so_and_leaves_all_files_alone(tmp_path, monkeypatch, capsys, options):
    (tmp_path / "published").mkdir()
    for name in ("networks.csv", "networks.json"):
        shutil.copy(paths.data() / "published" / name, tmp_path / "published")
    before = {path: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    monkeypatch.setattr(paths, "data", lambda: tmp_path)
    assert zoo_table.main(options) == 0
    n = len(zoo_table.wanted())
    assert capsys.readouterr().out == f"{n} of {n} networks are in the table\n"
    assert {path: path.read_bytes() for path in (tmp_path / "published").iterdir()} == before


@pytest.mark.smoke
def test_the_published_table_has_every_network_and_agrees_with_the_shipped_ones(table):
    assert table[zoo_table.KEY].values.tolist() == [list(key) for *key, _ in zoo_table.wanted()]
    for architecture, dataset_name, labels, seed, kept in zoo_table.wanted():
        recipe = zoo._default(zoo.RECIPES["laptop"], dataset_name, architecture)
        part = {"cave": "The cave", "cifar10": "CIFAR-10", "tiny": "Tiny-ImageNet"}[re.split("[-:]", dataset_name)[0]]
        [row] = table[(table[zoo_table.KEY] == [architecture, dataset_name, labels, seed]).all(axis=1)].itertuples()
        assert row.image_set.startswith(part)
        if "imagenet:" in dataset_name:
            assert f"part {dataset_name.split(':')[1][0]}" in row.image_set
        assert row.through_training >= kept
        if architecture not in ("factorised_vgg", "plain_vgg"):
            assert row.epochs == recipe.epochs
        if labels == "random":
            assert row.train_accuracy > 0.9
            assert row.test_accuracy < 2 * row.chance
        else:
            assert row.test_accuracy > (5 if row.chance < 0.2 else 3) * row.chance
    for record in json.loads((ROOT / "data" / "zoo" / "manifest.json").read_text()):
        mine = table[(table.architecture == record["architecture"]) & (table.image_set == record["title"])]
        is_random = record["recipe"]["random_labels"] > 0
        [row] = mine[(mine.seed == record["seed"]) & ((mine.labels == "random") == is_random)].itertuples()
        assert row.test_accuracy == pytest.approx(record["accuracy"], abs=1e-6)


@pytest.mark.smoke
def test_networks_of_photographs_are_as_good_as_asked(table):
    best = table[table.image_set.str.startswith("CIFAR-10")].groupby("architecture").test_accuracy.min()
    assert best["cnn6"] >= 0.80
    assert best["resnet18"] >= 0.88


@pytest.mark.smoke
def test_the_page_shows_one_row_for_each_kind_and_no_number_is_typed_in(table, builder, tmp_path):
    cell = {"cell_type": "markdown", "metadata": {}, "source": PAGE}
    assert builder.unrecorded_numbers({"cells": [cell]}) == []
    (tmp_path / "networks.md").write_text(PAGE, encoding="utf-8")
    subprocess.run([sys.executable, str(ROOT / "book" / "networks_page.py"), str(tmp_path)], check=True)
    shown = (tmp_path / "networks.md").read_text(encoding="utf-8")
    assert "{filled}" not in shown
    assert len(re.findall(r"(?m)^\| `", shown)) == len(zoo_table.NETWORKS) + len(zoo_table.ENCODINGS)
    n_encodings = sum(n_seeds for *_, n_seeds, _ in zoo_table.ENCODINGS)
    assert f"These {len(table) - n_encodings} were trained" in shown
    assert f"the {n_encodings} of {{ref}}`chapter 10" in shown
    accuracy = 100 * table[(table.architecture == "vgg11") & (table.image_set == "The cave")].test_accuracy
    assert f"{accuracy.mean():.1f} ({accuracy.min():.1f}–{accuracy.max():.1f})" in shown
