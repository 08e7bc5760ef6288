"""The benchmark runs, its other side is what it claims to be, and its page says what the published table says."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import plain
from conftest import ROOT
from convergent import published

FOLDER = ROOT / "benchmarks"
PAGE = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
SLACK = {"scikit-learn RidgeCV, leave one out", "pytorch-cka, batches of 256"}  # other estimates, by design


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem + "_under_test", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def benchmark():
    """The module benchmarks/metrics.py."""
    return module(FOLDER / "metrics.py")


@pytest.fixture(scope="module")
def page():
    """The module book/benchmarks_page.py."""
    return module(ROOT / "book" / "benchmarks_page.py")


@pytest.fixture(scope="module")
def peers():
    """The module benchmarks/peers.py."""
    return module(FOLDER / "peers.py")


@pytest.fixture
def table():
    table, about = published.read("benchmarks")
    table.attrs = about
    return table


@pytest.fixture(scope="module")
def networks():
    """Two networks of two layers, unequally wide, on 150 stimuli, none of which silences a layer: float64."""
    return module(FOLDER / "arrays.py").Networks(((16, 16), (20, 13))).activations(150, "float64")


# --- what is timed -----------------------------------------------------------------------------------


def test_a_stimulus_does_not_depend_on_how_many_follow():
    arrays = module(FOLDER / "arrays.py")
    few, many = (arrays.Networks((8, 12), seed=3).activations(n) for n in (600, 1100))
    for a, b in zip(few, many, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name][:600])


def test_units_of_one_network_have_partners_in_the_other(networks):
    a, b = networks
    r = plain.correlations(a["layer01"], b["layer01"])
    shuffled = plain.correlations(a["layer01"], np.random.default_rng(0).permutation(b["layer01"]))
    assert r.max(0).mean() > 0.6 > shuffled.max(0).mean()


@pytest.mark.parametrize(
    ("function", "definition"),
    [
        ("linear_by_pair", plain.linear),
        ("linear_stacked", plain.linear),
        ("procrustes_padded", plain.procrustes),
        ("procrustes_svd", plain.procrustes),
        ("permutation", plain.permutation),
        ("soft_matching", plain.soft_matching),
        ("shape_cosine", plain.shape_cosine),
        ("rsa_scipy", plain.rsa),
    ],
)
def test_the_other_side_follows_the_definitions(peers, networks, function, definition):
    a, b = networks
    for name, values in getattr(peers, function)(a, b).items():
        for i, X in enumerate(a.values()):
            for j, Y in enumerate(b.values()):
                expected = definition(Y, X) if name.endswith("b to a") else definition(X, Y)
                assert values[i, j] == pytest.approx(expected, abs=1e-9), (name, i, j)


@pytest.mark.parametrize("function", ["permutation", "soft_matching"])
def test_without_folds_the_other_side_gives_the_in_sample_value(peers, networks, function):
    a, b = networks
    [values] = getattr(peers, function)(a, b, folds=None).values()
    assert values[1, 1] == pytest.approx(getattr(plain, function)(a["layer02"], b["layer02"], folds=None), abs=1e-9)


def test_nested_searches_of_scikit_learn_hold_out_what_they_score(peers, networks):
    a, b = networks
    one = peers.nested_grid_search(a, b, alphas=[3.0])["linear a to b"]
    np.testing.assert_allclose(one, peers.linear_stacked(a, b, alpha=3.0)["linear a to b"], atol=1e-9)


# --- running it --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The table of a quick run, with whatever other packages are installed here."""
    out = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, FOLDER / "metrics.py", "--quick", "--threads", "1", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    return pd.read_csv(out / "benchmarks.csv", keep_default_na=False)


def test_a_quick_run_times_every_group(benchmark, quick):
    assert list(quick.columns) == list(benchmark.COLUMNS)
    assert set(quick.group) == set(benchmark.GROUPS)
    assert (pd.to_numeric(quick.seconds[quick.note == ""]) > 0).all()


def test_a_package_that_is_missing_is_named_and_does_not_stop_the_run(quick):
    installed = {"ckatorch": "ckatorch", "rsatoolbox": "rsatoolbox", "himalaya": "himalaya RidgeCV"}
    for package, side in installed.items():
        [note] = quick[quick.side == side].note
        assert note == ("" if importlib.util.find_spec(package) else "not installed")
    assert (quick[quick.kind != "peer"].note == "").all()


def test_all_sides_find_the_same_values(quick):
    rows = quick[(quick.difference != "") & ~quick.side.isin(SLACK)]
    assert {"linear", "procrustes", "permutation", "soft_matching", "shape_cosine", "rsa"} <= set(rows.work)
    differ = rows[pd.to_numeric(rows.difference) > 1e-5]
    assert differ.empty, differ[["group", "work", "side", "difference"]]


def test_a_partial_or_quick_run_is_never_published():
    for options in (["--quick"], ["--only", "nested"]):
        command = [sys.executable, FOLDER / "metrics.py", "--publish", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert "--publish is for the whole benchmark" in done.stderr


def test_sums_take_the_peer_named_first_and_the_fastest_with_the_same_values(benchmark):
    row = {"group": "held out", "rounds": 3, "low": 1.0, "high": 1.0, "memory_mib": 5.0, "dtype": "float32"}
    rows = [row | {"work": "all", "kind": "ours", "side": "ours", "seconds": 2.0, "difference": ""}]
    for work in benchmark.MAPPINGS:
        for side, seconds, difference in (("usual", 9.0, 1e-7), ("quick", 3.0, 1e-7), ("other", 1.0, 0.1)):
            peer = {"work": work, "kind": "peer", "side": side, "seconds": seconds, "difference": difference}
            rows.append(row | peer)
    usual, best = benchmark.totals(rows)
    assert (usual["seconds"], usual["ratio"]) == (36, 18)
    assert (best["seconds"], best["ratio"]) == (12, 6)


@pytest.mark.smoke
def test_every_other_package_has_one_fixed_version():
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert len(listed) >= 6
    assert [line for line in listed if not re.fullmatch(r"[\w-]+==\d[\w.]*", line)] == []


@pytest.mark.smoke
def test_make_bench_runs_every_benchmark():
    text = (FOLDER / "run.py").read_text(encoding="utf-8")
    named = set(re.findall(r'\("(\w+)", ', text))
    assert named == {"cave", "training", "alignment", "weights", "metrics"}
    assert all((FOLDER / f"{name}.py").is_file() for name in named)


# --- the published table, and its page ---------------------------------------------------------------


@pytest.mark.smoke
def test_the_published_table_is_that_of_the_whole_benchmark(benchmark, table):
    assert list(table.columns) == list(benchmark.COLUMNS)
    assert table.attrs["provenance"]["size"] == "full"
    asked = {(work.group, work.work) for group in benchmark.GROUPS.values() for work in group()}
    assert asked <= set(table[["group", "work"]].itertuples(index=False, name=None))
    assert table[table.seconds.isna()].empty, "publish with all packages installed"
    assert (table[["seconds", "low", "high", "ratio"]] > 0).all(axis=None)
    assert ((table.low <= table.seconds) & (table.seconds <= table.high)).all()


@pytest.mark.smoke
def test_the_published_table_says_what_it_was_measured_on(table):
    told = table.attrs["provenance"]
    assert {"device", "software", "linear algebra", "date", "code"} <= set(told)
    for line in (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if "==" in line:
            assert line.replace("==", " ") in told["software"], f"another {line.split('==')[0]} was timed"
    assert not [said for said in told.values() if re.search(r"(^|\s)[/~]|[A-Z]:\\", said)], "a path"


@pytest.mark.smoke
def test_no_measured_number_is_typed_into_the_page(builder):
    cell = {"cell_type": "markdown", "metadata": {}, "source": PAGE}
    assert builder.unrecorded_numbers({"cells": [cell]}) == []


@pytest.mark.smoke
def test_the_page_asks_for_nothing_that_the_table_has_not(page, table):
    filled = page.fill(PAGE, page.values(table))
    assert "{filled}" not in filled
    assert f"{page.Results(table).ratio('held out', 'all', page.SUMS[0]):.1f} times our time" in filled


@pytest.mark.smoke
def test_an_unknown_name_on_the_page_is_refused(page):
    with pytest.raises(ValueError, match="asks for 'speed'; there are usual, best"):
        page.fill("It is {filled}`speed:.1f` times faster.", {"usual": 1.0, "best": 2.0})


@pytest.mark.smoke
def test_a_page_that_cannot_be_filled_stops_the_build_with_the_reason(builder, tmp_path):
    script = tmp_path / "some_page.py"
    script.write_text("raise ValueError('the page asks for speed')")
    with pytest.raises(builder.BuildError, match="some_page.py failed:(.|\n)*the page asks for speed"):
        builder._fill_page(script, tmp_path)


@pytest.mark.smoke
def test_a_missed_aim_and_a_faster_package_are_said_on_the_page(page, table):
    slow = table.copy()
    is_peer = slow.side == "scikit-learn Ridge, pair by pair"
    assert is_peer.any()
    slow.loc[is_peer, "ratio"] = 0.5
    filled = page.fill(PAGE, page.values(slow))
    assert "| held-out ridge regression | scikit-learn, pair by pair | speed-up | 0.50 | ≥ 10 | **missed** |" in filled
    assert "- held-out ridge regression, against scikit-learn, pair by pair: speed-up 0.50." in filled
    assert "scikit-learn Ridge, pair by pair takes 0.50 of our time" in filled


def test_the_figures_of_the_page_are_drawn_and_have_no_background(page, table, tmp_path):
    (tmp_path / "benchmarks.md").write_text(PAGE, encoding="utf-8")
    page.main(tmp_path)
    named = re.findall(r"```\{figure\} (\S+)", PAGE)
    assert len(named) == 2
    for name in named:
        corner = page.plt.imread(tmp_path / name)[0, 0]
        assert corner[3] == 0
