"""What pushing a layer adds to the time of a training step (`convergent.push`), as a ratio to the step without it.

The six-layer network on images of 32 x 32 pixels in batches of 128, as the book trains it. Steps with and without the
push alternate in blocks, so that a drift of the machine's speed hits both; time is the process's own (processor time),
in one thread. Target: at most 1.6.
"""

import argparse
from statistics import median
from time import process_time

import torch

from convergent import images, networks, push, responses, training
from convergent.gabor import GaborBank
from convergent.oracles import Reference, TrainedNetwork


def references(width: float, n: int) -> dict[str, tuple[str, Reference]]:
    """Name -> (pushed layer, reference), for `n` images."""
    other = networks.load("cnn6", 10, width, seed=1)
    voxels = torch.randn(n, 100, generator=torch.Generator().manual_seed(0)).numpy()
    return {
        "Gabor filters": ("layer1", GaborBank(32)),
        "network, first layer": ("layer1", TrainedNetwork(other, "layer1")),
        "network, fifth layer": ("layer5", TrainedNetwork(other, "layer5")),
        "voxels, first layer": ("layer1", responses.Responses(voxels)),
        "voxels, last layer": ("layer6", responses.Responses(voxels)),
    }


def seconds(data, width: float, pushed: tuple[str, Reference] | None, metric: str) -> float:
    """Of one epoch."""
    recipe = training.Recipe(1, 128, "adam", 1e-3, crop=0, flip=False)
    network, extra = networks.load("cnn6", 10, width, seed=0), None
    if pushed is not None:
        extra = push.Push(network, *pushed, alpha=1.0, metric=metric, ledger=push.Ledger(len(data.train) // 128))
    start = process_time()
    if extra is None:
        run = training.train(network, data, recipe, progress=False)
    else:
        with extra.listening():
            run = training.train(network, data, recipe, extra_loss=extra, progress=False)
    return process_time() - start - run.epochs[0]["test_seconds"]


def measure(width: float, metric: str, steps: int, repeats: int) -> None:
    """Print the median ratio of each reference."""
    n = 128 * steps
    data = images.load("cave", n_train=n, n_test=10)
    for name, pushed in references(width, n).items():
        pairs = [(seconds(data, width, pushed, metric), seconds(data, width, None, metric)) for _ in range(repeats)]
        ratios = [with_push / without for with_push, without in pairs]
        each = 1e3 * median(without for _, without in pairs) / steps
        print(f"{metric:10} width {width}: {name:21} {median(ratios):.2f} x a step of {each:.0f} ms", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--metrics", nargs="+", default=["linear"])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for metric in options.metrics:
        for width in options.widths:
            measure(width, metric, options.steps, options.repeats)


if __name__ == "__main__":
    main()
