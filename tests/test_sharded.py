"""Moments that were collected in shards, on several workers or by workers that died, are those of a single pass."""

import os
import signal
import threading
import time

import dask
import numpy as np
import pytest
import torch

from clusters import until
from convergent import compare, networks, sharded
from convergent.rows import Rows
from convergent.stream import Moments

N = 1100
IMAGES = torch.randint(0, 256, (N, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def same(found: Moments, expected: Moments, within: float) -> None:
    """All sums, relative to the largest of each kind, as `found` would be around the pilot of `expected`."""
    empty = expected.merge(_moved(found, expected))
    for side in "ab":
        x, y = getattr(empty, side), getattr(expected, side)
        for name in y.within:
            assert float((x.within[name] - 2 * y.within[name]).abs().max() / y.within[name].abs().max()) < within
        assert float((x.sums - 2 * y.sums).abs().max() / y.within[name].abs().max()) < within
    assert float((empty.cross - 2 * expected.cross).abs().max() / expected.cross.abs().max()) < within


def _moved(found: Moments, expected: Moments) -> Moments:
    """`found` as if none of its stimuli had come: so that it can be added to `expected` in its units."""
    moved = object.__new__(Moments)
    moved.__dict__.update(found.__dict__, seen=Rows())
    return moved


@pytest.fixture(scope="module")
def client():
    from distributed import Client, LocalCluster

    about = {"memory_limit": 0, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, threads_per_worker=1, **about) as cluster, Client(cluster) as connected:
        yield connected


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Two networks and an npy file of images; the workers import nothing of this test."""
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, IMAGES.numpy())
    a, b = (networks.load("cnn6", seed=seed, width=0.25) for seed in (0, 1))
    return sharded.OfNetworks(a, b, sharded.OfArray(str(path)), layers=["layer1", "layer4"], batch_size=100)


def single_pass(rows, **settings) -> Moments:
    moments = Moments(N * rows.positions, positions=rows.positions, **settings)
    for first, rows_a, rows_b in rows(0, N):
        moments.update(rows_a, rows_b, first)
    return moments


@pytest.mark.parametrize("settings", [{}, {"nulls": 3, "shuffle": 4}, {"folds": None}])
def test_shards_add_up_to_the_single_pass(client, rows, settings):
    found = sharded.collect(rows, N, client, shard=300, **settings)
    same(found, single_pass(rows, **settings), within=1e-12)


def test_a_comparison_from_shards_is_the_comparison_of_the_networks(client, rows):
    found = compare.of_moments(sharded.collect(rows, N, client, shard=400, nulls=4), progress=False)
    about = {"layers": rows.layers, "batch_size": rows.batch_size, "nulls": 4, "progress": False}
    expected = compare.compare(rows.a, rows.b, images=IMAGES, **about)
    assert list(found) == list(expected)
    for column in ("value", "spread", "chance", "p", "n_stimuli"):
        assert np.allclose(found[column], expected[column], rtol=1e-6, atol=1e-6), column


def test_the_result_is_the_same_to_the_last_digit_whatever_the_workers(client, rows):
    both = sharded.collect(rows, N, client, shard=300)
    with dask.annotate(workers=[next(iter(client.nthreads()))]):
        one = sharded.collect(rows, N, client, shard=300)
    assert torch.equal(both.cross, one.cross)


class Slow:
    """Rows of random layers; each batch takes its time, so that there is a middle to kill a worker in."""

    positions = 1

    def __init__(self, marks):
        self.marks = marks

    def __call__(self, start, stop):
        for first in range(start, stop, 50):
            time.sleep(0.2)
            X = np.random.default_rng(first).normal(size=(50, 6))
            yield first, {"x": X}, {"y": X @ np.ones((6, 3)) + np.random.default_rng(first + 1).normal(size=(50, 3))}
        with open(self.marks, "a") as file:
            file.write(f"{start} {os.getpid()}\n")


def test_the_shards_of_a_lost_worker_are_done_again(client, tmp_path):
    marks = tmp_path / "marks"

    def kill():
        first = until(lambda: marks.exists() and marks.read_text().splitlines())[0]
        os.kill(int(first.split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    slow = Slow(str(marks))
    found = sharded.collect(slow, 1000, client, shard=100)
    killer.join()
    starts = [int(line.split()[0]) for line in marks.read_text().splitlines()]
    assert set(starts) == set(range(0, 1000, 100))
    assert len(starts) <= 10 + 4, f"more was done again than what the lost worker held: {sorted(starts)}"
    slow.marks = str(tmp_path / "other")
    expected = Moments(1000)
    for batch in slow(0, 1000):
        expected.update(*batch[1:], batch[0])
    same(found, expected, within=1e-12)


def test_what_does_not_fit_is_refused_before_anything_is_sent():
    for wrong, told in (({"shard": 0}, "shard=0"), ({"folds": 1}, "folds=1"), ({"nulls": -1}, "nulls=-1")):
        with pytest.raises(ValueError, match=told):
            sharded.collect(None, 100, None, **wrong)


def test_moments_take_what_the_model_says_whatever_the_number_of_stimuli():
    rng = np.random.default_rng(0)
    batch = [{"one": rng.normal(size=(50, 40)), "two": rng.normal(size=(50, 60))} for _ in range(2)]
    for n in (1_000, 1_000_000_000):
        moments = Moments(n, nulls=2)
        moments.update(*batch, 0)
        moments.update(*batch, n - 50)
        tensors = [moments.cross, moments.null_train, moments.null_test]
        tensors += [t for side in (moments.a, moments.b) for t in (side.sums, *side.within.values())]
        held = sum(t.numel() * t.element_size() for t in tensors) / 1e6
        assert held == pytest.approx(sharded.megabytes([40, 60], [40, 60], nulls=2), rel=1e-6)
        assert len(moments.seen) == 100


@pytest.mark.smoke
def test_rows_are_intervals_that_join():
    rows = Rows()
    for start in (0, 20, 10):
        rows = rows | Rows.of(slice(start, start + 10))
    assert rows.intervals == ((0, 30),)
    assert (len(rows), rows.end) == (30, 30)
    assert rows.shared(Rows.of(slice(25, 40))) == 5
    assert Rows().end == len(Rows.of(slice(3, 3))) == 0
