"""Products and factorisations give what torch gives, and threads are as many afterwards as before."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from convergent import linear_algebra
from convergent.lazy import cached_property

pytestmark = pytest.mark.smoke


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("limit", [linear_algebra.one_torch_thread, linear_algebra.one_thread])
def test_threads_are_as_many_as_before_also_after_an_error(two_threads, limit):
    seen = []

    def fails():
        with limit():
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_calls_from_several_threads_leave_as_many_threads_as_before(two_threads):
    together = Barrier(2)

    @linear_algebra.one_torch_thread()
    def work(first):
        together.wait(10)  # both are inside now
        if not first:
            leave.result(10)  # the other has left

    with ThreadPoolExecutor(2) as pool:
        leave = pool.submit(work, True)
        pool.submit(work, False).result(10)
    assert torch.get_num_threads() == 2


def test_workers_share_the_threads_once(two_threads):
    cpu = torch.device("cpu")
    with linear_algebra.one_torch_thread(), linear_algebra.workers(cpu) as outer:
        assert outer is not map, "a limit on torch alone leaves both cores to share"
        with linear_algebra.workers(cpu) as inner:
            assert inner is map
        assert list(outer(abs, [-2, 1])) == [2, 1]


def test_products_by_fold_are_those_of_the_folds():
    a, b = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 4, dtype=torch.float64)
    found = linear_algebra.products_by_fold(a, b, [4, 6])
    torch.testing.assert_close(found, torch.stack([a[:4].T @ b[:4], a[4:].T @ b[4:]]))


def test_a_factorisation_is_that_of_torch():
    X = torch.randn(20, 6, dtype=torch.float64)
    gram = X.T @ X
    values, vectors = linear_algebra.eigh(gram)
    torch.testing.assert_close(vectors * values @ vectors.T, gram)
    torch.testing.assert_close(linear_algebra.eigvalsh(gram), torch.linalg.eigvalsh(gram))
    torch.testing.assert_close(linear_algebra.solve(gram, X.T), torch.linalg.solve(gram, X.T))


def test_two_instances_compute_a_lazy_property_at_the_same_time():
    together = Barrier(2)

    class One:
        @cached_property
        def value(self):
            together.wait(10)  # breaks unless both are here
            return 1

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda one: one.value, [One(), One()])) == [1, 1]
