"""Functions on the workers of a cluster: each done once, whatever fails, hangs or is killed on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import clusters
from convergent import execution, sweep_cluster, sweep_tasks
from convergent.sweep_cluster import Options
from convergent.sweep_runs import SweepError
from convergent.sweep_tasks import Task

LOCAL = Options(workers=2, threads=1, timeout=120, dashboard="127.0.0.1:0")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Workers import what tasks call: this module."""
    folders = [Path(__file__).parent, Path(execution.__file__).parents[1]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))


def noted(folder: str, name: str, what: str = "") -> dict:
    """Write down that this was done; or fail, hang, end, or wait before."""
    if what == "fail":
        print("words before the end")
        raise ValueError("no such thing")
    if what == "exit":
        os._exit(7)
    time.sleep({"hang": 600, "slow": 4}.get(what, 0))
    with (Path(folder) / "done.txt").open("a") as file:
        file.write(f"{name}\n")
    return {"name": name, "threads": os.environ["OMP_NUM_THREADS"], "third": 1 / 3}


def times_done(folder: Path) -> dict[str, int]:
    path = folder / "done.txt"
    names = path.read_text().split() if path.exists() else []
    return {name: names.count(name) for name in sorted(set(names))}


def tasks(folder: Path, **what: str) -> list[Task]:
    return [Task(name, noted, (str(folder), name, kind)) for name, kind in what.items()]


def run(wanted: list[Task], folder: Path, options: Options = LOCAL, say=lambda line: None, done=lambda *given: None):
    with sweep_cluster.client(options, len(wanted), say) as cluster:
        return sweep_tasks.run(wanted, cluster, options, folder, say, done)


def test_each_task_is_done_once_and_a_failed_one_stops_no_other_and_keeps_what_it_said(tmp_path):
    said, given = [], {}
    wanted = tasks(tmp_path, a="", b="fail", c="exit", d="")
    failures = run(wanted, tmp_path, say=said.append, done=lambda task, value: given.update({task.title: value}))
    assert times_done(tmp_path) == {"a": 1, "d": 1}
    assert given == {name: {"name": name, "threads": "1", "third": 1 / 3} for name in "ad"}
    assert failures["b"] == "ValueError: no such thing"
    assert "ended with code 7" in failures["c"]
    kept = (tmp_path / "failed" / "b.log").read_text()
    assert "words before the end" in kept
    assert "Traceback" in kept
    assert sum("FAILED" in line for line in said) == 2
    assert any(line.startswith("[4 of 4]") for line in said)
    assert {path.name for path in tmp_path.iterdir()} == {"done.txt", "failed"}


def test_the_task_of_a_killed_worker_is_done_again_and_no_other(tmp_path):
    def kill():
        clusters.worker_of("convergent.sweep_call").kill()

    killer = threading.Thread(target=kill)
    killer.start()
    assert run(tasks(tmp_path, a="slow", b="slow", c="slow"), tmp_path) == {}
    killer.join()
    assert times_done(tmp_path) == {"a": 1, "b": 1, "c": 1}


def test_a_task_that_hangs_is_ended_at_its_time_limit(tmp_path):
    options = Options(workers=1, threads=1, timeout=5, dashboard="127.0.0.1:0")
    failures = run(tasks(tmp_path, a="hang"), tmp_path, options)
    assert failures == {"a": "took longer than --timeout 5 seconds and was ended"}


def test_a_worker_with_another_library_stops_all_with_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr("convergent.execution.library_hash", lambda: "another one")  # here, not in the tasks' processes
    with pytest.raises(SweepError, match="is not the one that the sweep was started with"):
        run(tasks(tmp_path, a="", b=""), tmp_path)
    assert times_done(tmp_path) == {}


@pytest.mark.smoke
def test_a_folder_that_a_worker_does_not_see_is_told(tmp_path):
    from convergent import sweep_call

    order = sweep_call.order("0", tasks(tmp_path, a="")[0], tmp_path / "elsewhere" / "tasks", None, 1)
    told = sweep_call.call(order)
    assert told["status"] == "failed"
    assert (
        f"does not see {tmp_path / 'elsewhere'}: it must lie on a file system that all workers share" in told["error"]
    )


STOPPED = """
import signal, sys
from pathlib import Path
from test_sweep_tasks import run, tasks

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background does not hear Ctrl-C
    folder = Path(sys.argv[1])
    run(tasks(folder, a="", b="hang", c="hang"), folder, say=lambda line: print(line, flush=True))
"""


def test_after_ctrl_c_nothing_goes_on(tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "stopped.py", tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stdout:
        if "[1 of 3] done" in line:
            break
    driver = psutil.Process(process.pid)
    clusters.until(lambda: len(clusters.running("convergent.sweep_call", driver)) == 2)
    everything = driver.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGINT, 1, 130)
    assert clusters.gone(everything)
    assert times_done(tmp_path) == {"a": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"done.txt", "stopped.py"}


def test_a_scheduler_that_is_killed_and_started_again_loses_nothing(tmp_path):
    kinds = {"a": "", "b": "hang", "c": ""}

    def missing(kinds):
        return [task for task in tasks(tmp_path, **kinds) if task.title not in times_done(tmp_path)]

    with clusters.scheduler_and_worker(tmp_path / "first") as (address, scheduler, worker):

        def say(line):
            if "[1 of 3] done" in line:
                clusters.until(lambda: clusters.running("convergent.sweep_call", worker))
                scheduler.kill()

        with pytest.raises(SweepError, match="the scheduler is gone: finished runs are kept"):
            run(missing(kinds), tmp_path, Options(address), say)
        assert times_done(tmp_path) == {"a": 1}
        clusters.until(lambda: not clusters.running("convergent.sweep_call", worker))  # nobody waits for it any more
    with clusters.scheduler_and_worker(tmp_path / "second") as (address, *_):
        assert run(missing(dict.fromkeys(kinds, "")), tmp_path, Options(address)) == {}
    assert times_done(tmp_path) == {"a": 1, "b": 1, "c": 1}
