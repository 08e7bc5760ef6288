"""Training speed: `convergent.training` against the usual DataLoader loop in float32.

Same network, images, batch size, augmentation, optimiser and number of steps; both loops run in this process,
alternating, so that a drift of the machine's speed hits both. Absolute times on shared machines mean little:
quote the ratio. The ceiling says what the convolutions alone would allow.
"""

import argparse
from statistics import median
from time import perf_counter

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from convergent import images, networks, training


class PhotographDataset(Dataset):
    """Images one by one through PIL and torchvision's transforms, as `torchvision.datasets.CIFAR10` gives them."""

    def __init__(self, split):
        self.images, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
        steps = [
            transforms.ToPILImage(),
            transforms.RandomCrop(split.images.shape[-1], padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def usual_epoch(network: nn.Module, split, batch_size: int) -> float:
    """Seconds of one epoch of the loop that tutorials teach: two workers, float32, a loss printed from time to time."""
    loader = DataLoader(PhotographDataset(split), batch_size, shuffle=True, num_workers=2, drop_last=True)
    where = training.device()
    network.train().to(where)
    loss_of = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    running, start = 0.0, perf_counter()
    for batch, targets in loader:
        optimiser.zero_grad()
        loss = loss_of(network(batch.to(where)), targets.to(where))
        loss.backward()
        optimiser.step()
        running += loss.item()
    return perf_counter() - start


def our_epoch(network: nn.Module, data, batch_size: int) -> float:
    """Seconds of the same epoch by `training.train`, the set-up of its tensors included, the test left out."""
    recipe = training.Recipe(epochs=1, batch_size=batch_size, learning_rate=0.05, schedule="constant")
    start = perf_counter()
    run = training.train(network, data, recipe, progress=False)
    return perf_counter() - start - run.epochs[0]["test_seconds"]


def convolution_seconds(batch_size: int, size: int = 32, repeats: int = 10) -> float:
    """Seconds of one step's convolutions alone, forward and backward, in the precision and layout that ours uses.

    Everything else in a step (normalisation, ReLU, pooling, loss, optimiser, data) costs nothing here: no loop with
    this network and batch size can be faster on this device with these kernels.
    """
    where, total = training.device(), 0.0
    kind = {"device": where, "dtype": training.mixed_precision(where) or torch.float32}
    network, shapes = networks.load("cnn6", seed=0), []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda module, inputs: shapes.append((module, inputs[0].shape[1:])))
    network(torch.zeros(1, 3, size, size))
    for i, (module, shape) in enumerate(shapes):
        layer = nn.Conv2d(shape[0], module.out_channels, module.kernel_size, padding=module.padding, bias=False, **kind)
        layer = layer.to(memory_format=torch.channels_last)
        batch = torch.rand(batch_size, *shape, **kind).contiguous(memory_format=torch.channels_last)
        batch.requires_grad_(i > 0)  # nobody asks for the gradient of the images
        gradient, seconds = torch.ones_like(layer(batch)), []
        for _ in range(repeats):
            start = perf_counter()
            layer(batch).backward(gradient)
            seconds.append(perf_counter() - start)
        total += median(seconds)
    return total


def main() -> None:
    """Print one line a round, then the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="training images an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    data = images.load("cave", n_train=options.images, n_test=500)
    half = training.mixed_precision(training.device())
    print(f"cnn6, {len(data.train):,} images an epoch, batches of {options.batch_size}, ours in {half or 'float32'}")
    ratios, ceilings = [], []
    for i in range(options.rounds):
        theirs = usual_epoch(networks.load("cnn6", seed=i), data.train, options.batch_size)
        ours = our_epoch(networks.load("cnn6", seed=i), data, options.batch_size)
        ratios.append(theirs / ours)
        ceilings.append(theirs / (convolution_seconds(options.batch_size) * (options.images // options.batch_size)))
        speeds = f"{options.images / theirs:5.0f} images/s usual, {options.images / ours:5.0f} ours"
        print(f"round {i + 1}: {speeds}, ratio {ratios[-1]:.2f}", flush=True)
    print(f"training: ratio {median(ratios):.2f} (median of {options.rounds}; target 4)")
    print(f"training: ratio {median(ceilings):.2f} if everything but the convolutions cost nothing")


if __name__ == "__main__":
    main()
