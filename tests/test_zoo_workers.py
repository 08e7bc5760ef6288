"""Networks and causal sweeps made on workers are those of one process, and each is made once."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from convergent import (
    causal,
    causal_sweep,
    execution,
    published,
    spatial_table,
    sweep_command,
    zoo,
    zoo_table,
    zoo_workers,
)
from convergent.causal import Condition, Setting
from convergent.spatial_table import Wanted
from convergent.sweep_cluster import Options
from convergent.sweep_runs import SweepError
from convergent.training import Recipe
from tiny import assert_same_weights, dataset

LOCAL = Options(workers=2, threads=1, timeout=300, dashboard="127.0.0.1:0")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Workers import what tasks call: this module."""
    folders = [Path(__file__).parent, Path(execution.__file__).parents[1]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))


def images(path: Path, size: int) -> str:
    """A tiny image set as a file, which every process can read."""
    data = dataset(size=size)
    parts = {"train": data.train, "test": data.test}
    arrays = {f"{name}_images": part.images.numpy() for name, part in parts.items()}
    np.savez(path, **arrays, **{f"{name}_labels": part.labels.numpy() for name, part in parts.items()})
    return str(path)


# --- networks ----------------------------------------------------------------------------------------


def unlucky(one: tuple) -> zoo.Entry:
    """A network for each seed but 13."""
    path, seed = one
    if seed == 13:
        raise ValueError("13 is no seed for me") if zoo._may_train.get() else zoo.NotTrainedError("not yet")
    return zoo.get("cnn6", path, [seed], "smoke", progress=False)[0]


def test_networks_that_are_nowhere_are_trained_once_and_a_failure_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))
    wanted = [(images(tmp_path / "some.npz", 32), seed) for seed in (0, 13, 1)]
    said = []
    failures = zoo_workers.train(wanted, unlucky, LOCAL, said.append)
    assert list(failures.values()) == ["ValueError: 13 is no seed for me"]
    assert said[0] == "3 networks: 0 are here, 3 to train"
    with zoo.without_training():
        there = {one[1]: unlucky(one) for one in wanted[::2]}
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "zoo").glob("*/record.json")}
    assert len(records) == 2
    said.clear()
    assert zoo_workers.train(wanted[::2], unlucky, LOCAL, said.append) == {}
    assert said == ["2 networks: 2 are here, 0 to train"]
    assert {path: path.stat().st_mtime_ns for path in records} == records
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "another"))
    assert_same_weights(unlucky(wanted[0]).network.state_dict(), there[0].network.state_dict())


def test_a_table_filled_from_workers_is_that_of_one_process(tmp_path, monkeypatch):
    path = images(tmp_path / "some.npz", 32)
    wanted = [Wanted("vgg11", path, "true", 0), Wanted("cnn6", path, "true", 0)]
    for name, options in (("workers", LOCAL), ("here", None)):
        monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / name))
        assert spatial_table.fill(tmp_path / f"{name}.csv", wanted, tier="smoke", options=options) == []
    assert (tmp_path / "workers.csv").read_text() == (tmp_path / "here.csv").read_text()
    assert pd.read_csv(tmp_path / "here.csv").architecture.unique().tolist() == ["vgg11", "cnn6"]
    lost = [*wanted, Wanted("cnn6", str(tmp_path / "nowhere"), "true", 0)]
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere"):  # before a worker is started
        spatial_table.fill(tmp_path / "workers.csv", lost, tier="smoke", options=LOCAL)


def test_the_table_of_all_networks_is_filled_from_workers_too(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))
    path = images(tmp_path / "some.npz", 32)
    wanted = [("cnn6", path, "true", 0, True), ("cnn6", path, "true", 1, False)]
    assert zoo_table.fill(tmp_path / "networks.csv", wanted, "smoke", LOCAL) == []
    table = pd.read_csv(tmp_path / "networks.csv", dtype=published.WORDS)
    assert table[zoo_table.KEY].values.tolist() == [list(key) for *key, _ in wanted]
    assert table.through_training.tolist() == [True, False]
    assert "2 networks: 0 are here, 2 to train" in capfd.readouterr().out
    with zoo.without_training():  # what the workers made is what this process finds
        for row, one in zip(table.itertuples(), wanted, strict=True):
            assert zoo_table.trained(*one, "smoke").accuracy == pytest.approx(row.test_accuracy, abs=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--workers", "0"], "invalid positive number value: '0'"),
        (["--threads", "2"], "go with --workers, --gpus or --scheduler"),
        (["--only-cached", "--workers", "2"], "--only-cached trains nothing"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_any_work(flags, told, capsys):
    with pytest.raises(SystemExit):
        spatial_table.main(flags)
    assert told in capsys.readouterr().err


@pytest.mark.smoke
def test_what_stops_a_command_is_one_message_and_its_exit_code(capsys):
    def stopped():
        raise KeyboardInterrupt

    def refused():
        raise SweepError("no scheduler answers")

    assert sweep_command.stopped_in_words("a command", stopped) == 130
    assert sweep_command.stopped_in_words("a command", refused) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("a command: stopped. Finished runs are kept")
    assert said[1] == "a command: no scheduler answers"


# --- the causal sweep --------------------------------------------------------------------------------


@pytest.fixture
def setting(tmp_path):
    recipe = Recipe(2, 16, "adam", 0.01, weight_decay=0.0, crop=0, flip=False)
    return Setting(images(tmp_path / "some.npz", 16), "cnn6", 0.2, recipe, None, None, 48, 16)


@pytest.fixture
def voxels(tmp_path):
    """A reference that is read from a file, with stimuli of its own."""
    responses = np.random.default_rng(0).standard_normal((96, 4))
    np.savez(tmp_path / "mine.npz", voxels=responses, images=dataset(seed=5).train.images.numpy())
    return f"npz:{tmp_path / 'mine.npz'}"


def test_a_sweep_on_workers_gives_the_rows_of_one_process_and_makes_nothing_twice(setting, voxels, tmp_path):
    runs = causal_sweep.conditions({("gabor", "layer1"): (-1.0, 0.0, 1.0)}, range(1))
    runs += causal_sweep.conditions({(voxels, "layer6"): (0.0, 1.0)}, range(1), controls=("shuffled",))
    here = causal_sweep.sweep(runs, setting, tmp_path / "here", progress=False)
    assert setting.data is not None
    assert "data" in vars(setting)  # which is not to travel
    spread = causal_sweep.sweep(runs, setting, tmp_path / "workers", progress=False, options=LOCAL)
    pd.testing.assert_frame_equal(spread.drop(columns="seconds"), here.drop(columns="seconds"))
    assert len(spread) == 10
    both = [causal_sweep.network_of(runs[-1], setting, tmp_path / name).state_dict() for name in ("here", "workers")]
    assert_same_weights(*both)
    found = {path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.safetensors")}
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "workers").rglob("*.safetensors")}
    assert {path.relative_to(tmp_path / "workers") for path in made} == found
    assert len(made) == 9, "the task alone is one network for both references"
    again = causal_sweep.sweep(runs, setting, tmp_path / "workers", progress=False, options=LOCAL)
    pd.testing.assert_frame_equal(again, spread)
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_runs_that_fail_stop_no_other_and_what_needs_them_is_not_tried(setting, tmp_path, capfd):
    lost = f"npz:{tmp_path / 'gone.npz'}"
    runs = [Condition("gabor", "layer1", 1.0), Condition(lost, "layer1", 1.0)]
    runs.append(Condition(lost, "layer1", 1.0, control="shuffled"))
    with pytest.raises(SweepError, match="2 of 3 runs failed") as told:
        causal_sweep.sweep(runs, setting, tmp_path / "kept", options=LOCAL)
    assert f"FileNotFoundError: reference '{lost}'" in str(told.value)
    assert f"needs {lost}, layer1, alpha=1, beta=1, seed=0, linear, which failed" in str(told.value)
    rows = [json.loads(line) for line in (tmp_path / "kept" / "manifest.jsonl").read_text().splitlines()]
    assert [row["reference"] for row in rows] == ["gabor"]
    assert "3 runs to do" in capfd.readouterr().out


@pytest.mark.smoke
def test_what_needs_another_run_waits_for_it_and_the_task_alone_is_made_once():
    setting = Setting()
    pushes = {("gabor", "layer1"): (0.0, 1.0), ("trained", "layer1"): (0.0, 2.0)}
    at_once, later = causal_sweep.waves(causal_sweep.conditions(pushes, range(1)), setting)
    assert [(c.reference, c.alpha) for c in at_once] == [("gabor", 0.0), ("gabor", 1.0), ("trained", 2.0)]
    alone = Condition("trained", "layer1", 0.0)
    assert later[alone] == at_once[0]
    assert {c.control for c in later if c != alone} == set(causal.CONTROLS[1:])
    assert all(later[c] == c.__class__(c.reference, c.layer, c.alpha) for c in later if c != alone)
    controls = [c for c in later if c.control != "none"]
    at_once, later = causal_sweep.waves(controls, setting)  # when the others have been made
    assert at_once == []
    assert set(later.values()) == {None}
