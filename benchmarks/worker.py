"""One side of a comparison in a process of its own: waits for orders, times them, says what it took.

`python worker.py arrays.npz` reads an order (JSON) a line and answers a line each: which function of which file here,
its options, and where to write the values. A process has loaded what it needs, and run once on a few stimuli, before
the clock starts, so that every time is that of a second call.
"""

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import arrays
import numpy as np

_FEW = 200  # stimuli of the trial run


def peak_mib() -> float:
    """Most memory that this process has held. (Its parent stays small: Linux counts that of before the exec, too.)"""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def trial(function, a, b, options) -> None:
    """The same on a corner of the data, so that nothing is loaded or compiled on the clock."""
    layers = [{name: X[:_FEW, :16] for name, X in list(side.items())[-2:]} for side in (a, b)]
    small = {"n_stimuli": 2 * arrays.BLOCK} if "n_stimuli" in options else {}
    function(*layers, **options | small)


def obey(order: dict, a: dict, b: dict) -> dict:
    """Run one order; {"seconds", "memory_mib"}, or {"missing"} for a package that is not installed."""
    module, name = order["function"].split(".")
    try:
        function = getattr(importlib.import_module(module), name)
        if order["trial"]:
            trial(function, a, b, order["options"])
        before, start = peak_mib(), time.perf_counter()
        found = function(a, b, **order["options"])
        seconds = time.perf_counter() - start
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    answer = {"seconds": found.pop("seconds", seconds), "memory_mib": max(peak_mib() - before, 0)}
    unfit = [key for key, values in found.items() if not np.isfinite(values).all()]
    if unfit:
        raise ValueError(f"{order['function']} gives values that are not finite: {', '.join(unfit)}")
    np.savez(order["out"], **found)
    return answer


def main() -> None:
    """Serve until the orders end. What packages print goes to standard error: the answers have their own channel."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    a, b = arrays.load(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line), a, b)), file=answers, flush=True)


if __name__ == "__main__":
    main()
