"""The page on scaling says what the published table says, and its model is the one that it writes down."""

import importlib.util
import subprocess
import sys

import pytest

from conftest import ROOT
from convergent import published, sharded

pytestmark = pytest.mark.smoke
PAGE = (ROOT / "book" / "scaling.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page():
    """The module book/scaling_page.py."""
    spec = importlib.util.spec_from_file_location("scaling_page", ROOT / "book" / "scaling_page.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table():
    return published.read("sharded")[0]


def test_the_page_is_filled_and_no_measured_number_is_typed_in(page, table, builder, tmp_path):
    cell = {"cell_type": "markdown", "metadata": {}, "source": PAGE.replace("1e-12", "")}
    assert builder.unrecorded_numbers({"cells": [cell]}) == []
    (tmp_path / "scaling.md").write_text(PAGE, encoding="utf-8")
    subprocess.run([sys.executable, str(ROOT / "book" / "scaling_page.py"), str(tmp_path)], check=True)
    shown = (tmp_path / "scaling.md").read_text(encoding="utf-8")
    assert "{filled}" not in shown
    for n in table.dropna(subset="stimuli").stimuli.unique():
        assert f"| {n:,.0f} | 2 |" in shown


def test_memory_of_a_worker_is_flat_from_ten_to_two_hundred_thousand_stimuli(table):
    runs = table[(table.what == "collection") & (table.workers == 2)].groupby("stimuli").memory_mib.max()
    assert (runs.index.min(), runs.index.max()) == (10_000, 200_000)
    assert runs.max() < 1.1 * runs.loc[10_000] + 20 * sharded.megabytes((64, 128, 256), (64, 128, 256))


def test_operations_are_those_of_the_three_products(page):
    assert page.operations([2, 3]) == 2 * (2 * (3**2 + 4**2) + (3 + 4) ** 2), "units and a squared norm of each layer"


def test_the_model_adds_up(page):
    costs = page.Costs(read=1.0, products=2.0, addition=10.0, moving=100.0)
    assert costs.busy(1000, 100) == 1000 * 3 + 9 * 10
    assert costs.seconds(1000, 1, 100) == 3000 + 9 * 10
    assert costs.seconds(1000, 2, 100) == 1500 + 4 * 10 + 110
    assert costs.seconds(1000, 10, 100) == 300 + 4 * 110


def test_more_machines_are_never_slower_in_the_model(page):
    seconds = [page.gpu().seconds(1e9, gpus, page.SHARD) for gpus in (1, 8, 64, 1000)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] / seconds[-1] < 1000
