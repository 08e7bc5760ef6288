"""Networks that are nowhere yet, trained on the workers of a cluster into the cache.

A network is one task. The zoo writes it whole or not at all, and a worker that is killed goes on after its last epoch.
"""

from collections.abc import Callable, Sequence

from . import paths, sweep_cluster, sweep_tasks, zoo


def train(
    wanted: Sequence[tuple],
    get: Callable[[tuple], zoo.Entry],
    options: sweep_cluster.Options,
    say: Callable = print,
) -> dict[str, str]:
    """Train those of `wanted` that are neither shipped nor in the cache; then `get` finds them without training.

    Parameters
    ----------
    wanted : what tells the networks apart, in the order in which they are begun
    get : takes one of `wanted` and asks the zoo for it; travels to the workers, so let it be a function of a module
    options : where and how

    Returns
    -------
    title (the words of one of `wanted`) -> error of those that failed

    Raises
    ------
    SweepError and KeyboardInterrupt as `sweep_tasks.run`; before any training what `get` raises, such as
    FileNotFoundError for images that are not here.
    """
    missing = [one for one in wanted if not _is_here(one, get)]
    if wanted:
        say(f"{len(wanted)} networks: {len(wanted) - len(missing)} are here, {len(missing)} to train")
    if not missing:
        return {}
    tasks = [sweep_tasks.Task(", ".join(map(str, one)), _accuracy, (one, get)) for one in missing]
    with sweep_cluster.client(options, len(missing), say) as cluster:
        return sweep_tasks.run(tasks, cluster, options, paths.cache() / "zoo", say)


def _is_here(one: tuple, get: Callable) -> bool:
    try:
        with zoo.without_training():
            get(one)
    except zoo.NotTrainedError:
        return False
    return True


def _accuracy(one: tuple, get: Callable) -> float:
    return get(one).accuracy
