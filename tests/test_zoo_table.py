"""The table of trained networks, and the page that shows it."""

import json
import re
import subprocess
import sys

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
    assert (row["architecture"], row["image_set"], row["seed"], row["classes"]) == ("cnn6", "Tiny", 3, 3)
    assert (row["epochs"], row["batch_size"], row["steps"]) == (2, 16, 12)
    assert row["weights"] == sum(p.numel() for p in entry.network.parameters())
    assert row["test_accuracy"] == entry.accuracy
    assert row["train_accuracy"] == entry.history.train_accuracy.iloc[-1]
    assert row["chance"] == pytest.approx(1 / 3)
    assert row["through_training"]
    assert data.hash.startswith(row["images_sha256"])


@pytest.mark.smoke
def test_shipped_networks_have_a_row_each_in_the_order_asked(capsys):
    found = zoo_table.table([("resnet18", "cave", 1, 0), ("cnn6", "cifar10", 2, 1)])
    assert found[["architecture", "image_set", "seed"]].values.tolist() == [
        ["resnet18", "The cave", 0],
        ["cnn6", "CIFAR-10 (JPEG copy)", 0],
        ["cnn6", "CIFAR-10 (JPEG copy)", 1],
    ]
    assert "resnet18 on cave, seed 0: " in capsys.readouterr().out


@pytest.mark.smoke
def test_the_published_table_has_every_network_and_agrees_with_the_shipped_ones(table):
    for architecture, dataset_name, n_seeds, n_kept in zoo_table.NETWORKS:
        recipe = zoo._default(zoo.RECIPES["laptop"], dataset_name, architecture)
        part = {"cave": "The cave", "cifar10": "CIFAR-10", "tiny": "Tiny-ImageNet"}[dataset_name.split("-")[0]]
        rows = table[(table.architecture == architecture) & table.image_set.str.startswith(part)]
        if ":" in dataset_name:
            rows = rows[rows.image_set.str.contains(f"part {dataset_name.split(':')[1][0]}")]
        assert rows.seed.tolist() == list(range(n_seeds))
        assert rows.through_training.sum() >= n_kept
        assert set(rows.epochs) == {recipe.epochs}
        assert (rows.test_accuracy > 5 * rows.chance).all()
    listed = {architecture for architecture, *_ in zoo_table.NETWORKS}  # the others are in tables of chapters 9 and 10
    for record in json.loads((ROOT / "data" / "zoo" / "manifest.json").read_text()):
        if record["architecture"] not in listed:
            continue
        mine = table[(table.architecture == record["architecture"]) & (table.image_set == record["title"])]
        [row] = mine[mine.seed == record["seed"]].itertuples()
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
    assert len(re.findall(r"(?m)^\| `", shown)) == len(zoo_table.NETWORKS)
    assert f"These {len(table)} were trained" in shown
    accuracy = 100 * table[(table.architecture == "vgg11") & (table.image_set == "The cave")].test_accuracy
    assert f"{accuracy.mean():.1f} ({accuracy.min():.1f}–{accuracy.max():.1f})" in shown
