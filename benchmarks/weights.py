"""Seconds of each step of chapter 10's comparison of one layer, up to 2,560 inputs and 256 neurons.

Time is the process's own (processor time, summed over threads), so that a busy machine does not change it much.
"""

import argparse
from statistics import median
from time import process_time

import torch

from convergent import weight_covariances as covariances
from convergent import weight_similarity as similarity


def planted(n_inputs: int, n_neurons: int, seed: int, n_learned: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (n_neurons, n_inputs) with learned directions, and responses that they look at (3 n_inputs, n_inputs)."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(n_neurons, n_inputs, generator=random)
    weights[:, :n_learned] *= torch.linspace(10, 3, n_learned)
    return weights, torch.randn(3 * n_inputs, n_inputs, generator=random)


def steps(n_inputs: int, n_neurons: int) -> dict[str, float]:
    """Step -> seconds."""
    (first, seen), (second, other) = (planted(n_inputs, n_neurons, seed) for seed in (0, 1))
    mixed, seconds = seen @ torch.linalg.qr(torch.randn(n_inputs, n_inputs))[0] + 0.3 * other, {}

    def timed(name, work):
        start = process_time()
        found = work()
        seconds[name] = process_time() - start
        return found

    cross = timed("second moments", lambda: mixed.T @ seen)
    rotation = timed("alignment", lambda: covariances.alignment(cross))
    both = timed(
        "covariances", lambda: [covariances.weight_covariance(weights, 1.0) for weights in (first, second)]
    )  # fmt: skip
    one, two = timed("shrinkage", lambda: [covariances.learned_and_random(covariance)[0] for covariance in both])
    turned = timed("turning", lambda: one.seen_by(rotation))
    timed("Bures cosine", lambda: similarity.bures_cosine(turned, two))
    on = timed("scale (10 + 10 draws)", lambda: similarity.scale(one, draws=10))
    timed("similarity", lambda: similarity.normalised_similarity(turned, two, on=on))
    return seconds


def main() -> None:
    """Print medians over repeats, and their sum: a layer's full comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, nargs="+", default=[320, 1280, 2560])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for n_inputs in options.inputs:
        runs = [steps(n_inputs, max(n_inputs // 10, 8)) for _ in range(options.repeats)]
        shown = {name: median(run[name] for run in runs) for name in runs[0]}
        print(f"weights, C_in = {n_inputs}: {sum(shown.values()):.2f} s of processor time", flush=True)
        for name, seconds in shown.items():
            print(f"    {name:22} {seconds:8.3f} s", flush=True)


if __name__ == "__main__":
    main()
