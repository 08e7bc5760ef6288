"""Images and networks small enough to train in a second."""

import torch

from convergent import images
from convergent.training import Recipe

RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.05, crop=1)


def split(n, n_classes=3, size=16, seed=0):
    """Noise; class c is bright in colour channel c % 3, its images anything but alike."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    pixels = torch.randint(0, 120, (n, 3, size, size), generator=generator)
    pixels[torch.arange(n), labels % 3] += 100
    return images.Split(pixels.to(torch.uint8), labels)


def dataset(n_train=96, n_test=48, n_classes=3, size=16, seed=0, name="tiny"):
    train, test = split(n_train, n_classes, size, 2 * seed), split(n_test, n_classes, size, 2 * seed + 1)
    classes = [f"class {i}" for i in range(n_classes)]
    return images.Dataset(name, "Tiny", train, test, classes, images.content_hash(train, test, classes), size)


def assert_same_weights(first, second):
    """Two state dicts hold the same names and the same numbers, to the last bit."""
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
