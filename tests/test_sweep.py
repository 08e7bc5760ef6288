"""A sweep makes each run once, whatever is killed, misspelt, hanging, full or changed on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from filelock import FileLock

from clusters import gone, running, scheduler_and_worker, until, worker_of
from convergent import sweep_grid, sweep_runs
from convergent.sweep import SweepError, plan, sweep
from convergent.sweep_cluster import Options
from convergent.sweep_command import _positive

PARAMETERS = 'x: int = 1\nscale: float = 1.0\nkind: str = "plain"'
WORK = """
import time
if kind == "fail":
    raise ValueError("no such kind")
time.sleep(600 if kind == "hang" else 3 if kind == "slow" else 0)
if kind == "long":
    print("x" * 3_000_000)
"""
TOLD = """
from convergent.results import record
from convergent.published import keep
import os
import pandas as pd
record("square", x * x * scale)
record("seen", kind)
record("threads", os.environ["OMP_NUM_THREADS"])
keep("powers", pd.DataFrame({"power": [1, 2], "x": [x, x * x]}))
with open("made.txt", "a") as file:
    file.write(f"{x}\\n")
"""
LOCAL = Options(workers=2, timeout=300, dashboard="127.0.0.1:0")


def notebook(path: Path, *cells: str) -> Path:
    """A notebook whose first cell holds the parameters."""
    import nbformat

    made = [nbformat.v4.new_code_cell(cell) for cell in (PARAMETERS, *cells)]
    made[0].metadata["tags"] = ["parameters"]
    spec = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=spec), path)
    return path


def times_made(folder: Path) -> dict[str, int]:
    """How often each x was made to the end."""
    path = folder / "made.txt"
    return pd.Series(path.read_text().split()).value_counts().to_dict() if path.exists() else {}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of three good runs and one that fails: folder, outcome, what was said, a function that repeats it."""
    folder = tmp_path_factory.mktemp("swept")
    source = notebook(folder / "tiny.ipynb", WORK, TOLD)
    before = Path.cwd()
    os.chdir(folder)  # where the notebooks run, and write what was made
    chosen = [*({"x": x} for x in (1, 2, 3)), {"x": 4, "kind": "fail"}]

    def run():
        said = []
        return sweep(source, chosen, folder / "out", LOCAL, said.append), said

    outcome, said = run()
    yield folder, outcome, said, run
    os.chdir(before)


@pytest.fixture(autouse=True)
def _here(request, tmp_path, monkeypatch):
    """Notebooks run in the folder of their test."""
    monkeypatch.chdir(request.getfixturevalue("swept")[0] if "swept" in request.fixturenames else tmp_path)


# --- what a sweep leaves ----------------------------------------------------------------------------


def test_every_run_has_its_notebook_values_provenance_and_log(swept):
    folder, outcome, _, _ = swept
    assert (outcome.n_runs, outcome.made, outcome.already) == (4, 3, 0)
    done = sweep_runs.done(folder / "out")
    assert len(done) == 3
    for run in done.values():
        about = json.loads((run / "run.json").read_text())
        recorded = json.loads((run / "values.json").read_text())
        x = about["parameters"]["x"]
        assert recorded["square"] == x * x
        assert recorded["threads"] == str(json.loads((run / "provenance.json").read_text())["threads"])
        assert json.loads((run / "notebook.ipynb").read_text())["cells"]
        assert (run / "log.txt").read_text()
    assert times_made(folder) == {"1": 1, "2": 1, "3": 1}


def test_a_failed_run_keeps_its_notebook_with_the_error_and_stops_no_other(swept):
    folder, outcome, said, _ = swept
    [(title, error)] = outcome.failures.items()
    assert "kind=fail" in title
    assert error == "cell 3: ValueError: no such kind"
    [kept] = (folder / "out" / "failed").glob("*/notebook.ipynb")
    assert "ValueError" in kept.read_text()
    assert any("FAILED" in line for line in said)


def test_the_tables_hold_every_run_and_value_in_csv_and_in_parquet(swept):
    folder, *_ = swept
    table = pd.read_csv(folder / "out" / "results.csv")
    squares = table[table.name == "square"].set_index("x").value
    assert squares.to_dict() == {1: 1.0, 2: 4.0, 3: 9.0}
    assert set(table[table.name == "seen"].text) == {"plain"}
    runs = pd.read_csv(folder / "out" / "runs.csv")
    assert runs.status.value_counts().to_dict() == {"done": 3, "failed": 1}
    powers = pd.read_csv(folder / "out" / "tables" / "powers.csv")
    assert len(powers) == 6
    assert (powers[powers.power == 2].x == powers[powers.power == 2].parameter_x ** 2).all()
    for name in ("results", "runs", "tables/powers"):
        stored = pd.read_parquet(folder / "out" / f"{name}.parquet")
        text = pd.read_csv(folder / "out" / f"{name}.csv")
        assert list(stored) == list(text)
        assert len(stored) == len(text)


def test_the_report_needs_no_other_file_and_shows_numbers_and_failures(swept):
    folder, *_ = swept
    page = (folder / "out" / "report.html").read_text()
    assert "3 done, 1 failed" in page
    assert 'alt="square against x, from 1 to 9 over 3 runs"' in page
    assert "no such kind" in page
    assert "http://" not in page
    assert "https://" not in page
    assert 'src="data:image/png;base64,' in page


def test_the_same_command_again_makes_only_what_is_missing_and_says_what_changed(swept):
    folder, _, _, run = swept
    outcome, said = run()
    assert (outcome.already, outcome.made, len(outcome.failures)) == (3, 0, 1), "the failed run is tried again"
    assert times_made(folder) == {"1": 1, "2": 1, "3": 1}
    notebook(folder / "tiny.ipynb", WORK.replace('kind == "fail"', "False"), TOLD)
    outcome, said = run()
    assert (outcome.already, outcome.made, outcome.failures) == (0, 4, {})
    assert any("3 of them were made before notebook changed" in line for line in said)
    assert not list((folder / "out" / "failed").iterdir()) or len(sweep_runs.done(folder / "out")) == 7
    started = time.monotonic()
    outcome, said = run()
    assert (outcome.already, outcome.made) == (4, 0)
    assert time.monotonic() - started < 5, "nothing is to do, and nothing is started"


# --- what is checked first ---------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x: [1, 2]", "at its top stands x"),
        ("grid: {x: 1}", r"write a list of values, such as \[1\]"),
        ("grid: {x: []}", "write a list"),
        ("grid: 3", "grid is 3"),
        ("runs: [3]", "parameter sets"),
        ("grid: {x: [1]}\nruns: [{x: 1}]", "at its top stands grid, runs"),
        ("grid: {x: [1, 1]}", "twice"),
        ("grid: {x: [1]}\nfixed: {x: 2}", "x stands in fixed and in the runs"),
        ("grid: {x: [1", "is no YAML"),
        ("", "at its top stands NoneType"),
    ],
)
def test_a_file_of_another_layout_is_refused_with_the_layout(tmp_path, text, told):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(ValueError, match=told):
        sweep_grid.read(tmp_path / "grid.yaml")


@pytest.mark.smoke
def test_a_grid_is_every_combination_and_the_command_line_is_stronger_than_the_file(tmp_path):
    (tmp_path / "grid.yaml").write_text("grid: {x: [1, 2], kind: [a, b]}\nfixed: {scale: 2.0}")
    read = sweep_grid.read(tmp_path / "grid.yaml", {"scale": 3.0})
    assert [(one["x"], one["kind"]) for one in read] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert {one["scale"] for one in read} == {3.0}


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("one", "told"),
    [
        ({"scal": 1.0}, r"unknown parameter 'scal'\. Did you mean 'scale'\?"),
        ({"x": "two"}, "parameter 'x' is declared int but is 'two'"),
        ({"x": 1.5}, "declared int but is 1.5"),
        ({"x": [1, 2]}, "A list is one value here"),
        ({"scale": "1e-3"}, "YAML reads this as text: write 0.001"),
        ({"kind": True}, "Put it in quotes"),
    ],
)
def test_parameters_are_checked_before_anything_runs(tmp_path, one, told):
    source = notebook(tmp_path / "tiny.ipynb", WORK)
    with pytest.raises(SweepError, match=f"(?s)nothing was run.*{told}") as refused:
        sweep(source, [{"x": 2}, one], tmp_path / "out", LOCAL)
    assert refused.value.code == 2
    assert not (tmp_path / "out").exists()


def test_values_are_put_to_the_notebooks_own_check_before_anything_runs(tmp_path):
    check = "from convergent.results import check_parameters\ncheck_parameters(x=range(1, 4), kind=('a', 'plain'))"
    source = notebook(tmp_path / "tiny.ipynb", check, TOLD)
    with pytest.raises(SweepError, match="must lie between 1 and 3") as refused:
        sweep(source, [{"x": 1}, {"x": 7}, {"kind": "plane"}], tmp_path / "out", LOCAL)
    assert "x=7: ValueError" in str(refused.value)
    assert "Did you mean 'plain'?" in str(refused.value)
    assert times_made(tmp_path) == {}


@pytest.mark.smoke
def test_a_notebook_without_parameters_or_that_is_none_is_refused(tmp_path):
    (tmp_path / "text.ipynb").write_text("no notebook")
    (tmp_path / "empty.ipynb").write_text('{"cells": []}')
    for name, told in (("text", "is no notebook"), ("empty", "0 cells are tagged"), ("gone", "is not here")):
        with pytest.raises(SweepError, match=told):
            plan(tmp_path / f"{name}.ipynb", [{}])


@pytest.mark.smoke
def test_a_run_is_the_same_run_whether_a_default_is_named_or_not(tmp_path):
    source = notebook(tmp_path / "tiny.ipynb", WORK)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(b"1")
    keys = [plan(source, [one])[0].key for one in ({"x": 2}, {"x": 2, "scale": 1.0}, {"x": 3})]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(SweepError, match="x=2 and x=2, scale=1.0 are one run"):
        plan(source, [{"x": 2}, {"x": 2, "scale": 1.0}])
    named = {"kind": f"checkpoint:{tmp_path / 'images'}?architecture=cnn6"}
    before = plan(source, [named])[0]
    (tmp_path / "images" / "two.png").write_bytes(b"2")
    after = plan(source, [named])[0]
    assert before.key != after.key, "a folder of images that a parameter names has changed"
    assert [part for part in before.parts if before.parts[part] != after.parts[part]] == ["files of kind"]


@pytest.mark.smoke
def test_a_folder_that_another_sweep_holds_is_refused_with_its_name(tmp_path):
    source = notebook(tmp_path / "tiny.ipynb", WORK)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".sweep.json").write_text("process 17 on here")
    with FileLock(tmp_path / "out" / ".sweep.lock"):
        with pytest.raises(SweepError, match=r"another sweep that is running \(process 17 on here\)"):
            sweep(source, [{}], tmp_path / "out", LOCAL)


@pytest.mark.smoke
def test_a_number_of_workers_is_positive():
    with pytest.raises(ValueError, match="0"):
        _positive(int)("0")


# --- what is killed ----------------------------------------------------------------------------------


def family(process: psutil.Process) -> list[psutil.Process]:
    return process.children(recursive=True)


def test_the_run_of_a_killed_worker_is_made_again_and_no_other(tmp_path):
    source = notebook(tmp_path / "tiny.ipynb", WORK, TOLD)
    orphans = []

    def kill():
        worker = worker_of("convergent.sweep_one")
        until(lambda: running("ipykernel_launcher", worker))
        orphans.extend(family(worker))
        worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = sweep(
        source,
        [{"x": x, "kind": "slow"} for x in (1, 2, 3)],
        tmp_path / "out",
        LOCAL,
        lambda line: None,
    )
    killer.join()
    assert (outcome.made, outcome.failures) == (3, {})
    assert times_made(tmp_path) == {"1": 1, "2": 1, "3": 1}
    assert len(orphans) >= 2
    assert gone(orphans), "the notebook of a killed worker goes on"


def test_a_notebook_that_hangs_is_ended_at_its_time_limit(tmp_path):
    source = notebook(tmp_path / "tiny.ipynb", WORK, TOLD)
    options = Options(workers=1, timeout=5, dashboard="127.0.0.1:0")
    outcome = sweep(source, [{"kind": "hang"}], tmp_path / "out", options, lambda line: None)
    [error] = outcome.failures.values()
    assert error == "took longer than --timeout 5 seconds and was ended"
    assert list((tmp_path / "out" / "failed").glob("*/log.txt"))


def test_a_library_that_is_not_the_sweeps_stops_it_with_one_message(tmp_path, monkeypatch):
    source = notebook(tmp_path / "tiny.ipynb", WORK, TOLD)
    monkeypatch.setattr(
        "convergent.execution.library_hash", lambda: "another one"
    )  # here, not in the processes of runs
    with pytest.raises(SweepError, match="is not the one that the sweep was started with"):
        sweep(source, [{"x": 1}, {"x": 2}], tmp_path / "out", LOCAL, lambda line: None)
    assert times_made(tmp_path) == {}


def test_after_ctrl_c_finished_runs_stay_and_nothing_goes_on(tmp_path):
    notebook(tmp_path / "tiny.ipynb", WORK, TOLD)
    runs = [{"x": 1}, {"x": 2, "kind": "hang"}]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"runs": runs}))
    command = [sys.executable, "-m", "convergent", "sweep", "tiny.ipynb", "grid.yaml", "--out", "out", "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--dashboard", "127.0.0.1:0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout:
        if "[1 of 2] done" in line:
            break
    until(lambda: len(family(psutil.Process(process.pid))) >= 4)  # tracker, worker, run, kernel
    kernels = family(psutil.Process(process.pid))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped. Finished runs are kept" in said
    assert "Traceback" not in said, said
    assert gone(kernels)
    assert times_made(tmp_path) == {"1": 1}
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv").query("status == 'done'")) == 1


def test_a_lost_scheduler_is_one_message_and_what_is_finished_stays(tmp_path):
    source = notebook(tmp_path / "tiny.ipynb", WORK, TOLD)
    chosen = [{"x": 1}, {"x": 2, "kind": "hang"}]
    with scheduler_and_worker(tmp_path / "cluster") as (address, scheduler, _):
        options = Options(scheduler=address)
        with pytest.raises(SweepError, match="has no worker with {'GPU': 1}"):
            sweep(source, chosen, tmp_path / "out", Options(address, resources={"GPU": 1}), print)

        def say(line):
            if "[1 of 2] done" in line:
                scheduler.kill()

        with pytest.raises(SweepError, match="the scheduler is gone: finished runs are kept"):
            sweep(source, chosen, tmp_path / "out", options, say)
        assert len(sweep_runs.done(tmp_path / "out")) == 1
        with pytest.raises(SweepError, match="no scheduler answers at"):
            sweep(source, chosen, tmp_path / "out", options, print)


def test_a_scheduler_that_is_killed_and_started_again_loses_nothing(tmp_path):
    wait = "import os, time\nwhile x > 1 and not os.path.exists('go'):\n    time.sleep(0.1)"
    source = notebook(tmp_path / "tiny.ipynb", wait, TOLD)
    runs = (source, [{"x": x} for x in (1, 2, 3)], tmp_path / "out")
    with scheduler_and_worker(tmp_path / "first") as (address, scheduler, worker):

        def say(line):
            if "[1 of 3] done" in line:
                until(lambda: running("ipykernel_launcher", worker))  # the second run is being made
                scheduler.send_signal(signal.SIGKILL)

        with pytest.raises(SweepError, match="the scheduler is gone: finished runs are kept"):
            sweep(*runs, Options(address), say)
        first = sweep_runs.done(tmp_path / "out")
        assert len(first) == 1
        before = {path: (path / "run.json").stat().st_mtime_ns for path in first.values()}
    (tmp_path / "go").touch()
    said = []
    with scheduler_and_worker(tmp_path / "second") as (address, *_):
        outcome = sweep(*runs, Options(address), said.append)
    assert (outcome.already, outcome.made, outcome.failures) == (1, 2, {})
    assert said[0] == "3 runs of tiny: 1 done before, 2 to do"
    assert {path: (path / "run.json").stat().st_mtime_ns for path in before} == before
    assert len(sweep_runs.done(tmp_path / "out")) == 3
    assert times_made(tmp_path) == {"1": 1, "2": 1, "3": 1}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small file system: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_message_and_what_is_finished_stays(tmp_path, small_disk):
    source = notebook(tmp_path / "tiny.ipynb", WORK, TOLD)
    chosen = [{"x": 1}, {"x": 2, "kind": "long"}]
    options = Options(workers=1, dashboard="127.0.0.1:0")
    with pytest.raises(SweepError, match="No space left on device.*Finished runs are kept"):
        sweep(source, chosen, small_disk / "out", options, lambda line: None)
    assert len(sweep_runs.done(small_disk / "out")) == 1
    assert times_made(tmp_path)["1"] == 1
