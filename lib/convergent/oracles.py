"""References to push a layer towards or away from: what another system says about the same images.

Three kinds, one interface (`Reference`): a theory (`convergent.gabor.GaborBank`), another network (`TrainedNetwork`),
measured responses (`convergent.responses`). The kinds are those of Srivastava, Soni & Khosla (2025, section 2).
"""

from abc import ABC, abstractmethod
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from . import networks, representations, training

GRID = 2  # a layer is averaged over so many rows and columns of places before responses without places are compared


class Reference(ABC):
    """What a system says about images.

    Attributes
    ----------
    n_units : number of its units
    places : whether it says something about each place of an image, so that it gives maps
    by_index : whether it knows images by their position in the data set only, not by their pixels. Images must then be
        shown as they are: a mirrored image has no measured response.
    """

    n_units: int
    places: bool = True
    by_index: bool = False

    @abstractmethod
    def __call__(self, images: Tensor, which: Tensor | None = None, shape: tuple[int, int] | None = None) -> Tensor:
        """Responses to a batch of images.

        Parameters
        ----------
        images : (n, 3, height, width), uint8 or floats in [0, 1]
        which : (n,) positions of the images in the data set; needed where `by_index`
        shape : rows and columns of the layer's map that they are compared with; None: as fine as the reference is

        Returns
        -------
        float tensor (n, n_units, rows, columns), or (n, n_units) without places
        """

    def at(self, images: Tensor, points: Tensor, which: Tensor | None = None) -> Tensor:
        """Responses at points of the images (n * n_points, n_units), those of one image together.

        Parameters
        ----------
        images, which : as in a call
        points : (n, n_points, 2) rows and columns, as shares of the image in [0, 1)
        """
        return rows_at(self(images, which), points)

    @property
    def on_test(self) -> "Reference":
        """The reference for the test images: itself, where it knows images by their pixels."""
        return self


def rows_at(maps: Tensor, points: Tensor) -> Tensor:
    """Rows (n * n_points, units) of maps (n, units, rows, columns) at points (n, n_points, 2) of the images."""
    n, units, height, width = maps.shape
    cells = (points * torch.tensor([height, width], device=points.device)).long()
    index = (cells[..., 0] * width + cells[..., 1]).to(maps.device)  # (n, n_points)
    found = maps.flatten(2).gather(2, index[:, None].expand(-1, units, -1))
    return found.transpose(1, 2).reshape(-1, units)


def points(n: int, n_points: int, seed: int | tuple[int, ...]) -> Tensor:
    """Random points (n, n_points, 2) in [0, 1), those of one image in different cells of a grid over it."""
    cells = int(np.ceil(n_points**0.5))
    rng = np.random.default_rng(seed)
    chosen = rng.random((n, cells**2)).argsort(1)[:, :n_points]
    return torch.from_numpy((np.stack(np.divmod(chosen, cells), 2) + rng.random((n, n_points, 2))) / cells).float()


class TrainedNetwork(Reference):
    """A layer of a network that was trained before and is no longer changed.

    Parameters
    ----------
    network : takes the images as `networks` do; a frozen copy is not made: do not train it meanwhile
    layer : name of one of its modules, whose output has 2 or 4 dimensions

    Raises
    ------
    ValueError for a layer that the network does not have or whose output has other dimensions.
    """

    def __init__(self, network: nn.Module, layer: str):
        self.network, self.layer = network.eval(), layer
        self._ahead = _blocks_until(network, layer)
        size = getattr(network, "input_size", 32)
        like = self(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        if like.ndim not in (2, 4):
            raise ValueError(f"layer {layer!r} gives {tuple(like.shape)}: choose one of 2 or 4 dimensions")
        self.n_units, self.places = like.shape[1], like.ndim == 4

    @torch.no_grad()
    def __call__(self, images: Tensor, which: Tensor | None = None, shape: tuple[int, int] | None = None) -> Tensor:
        half = training.mixed_precision(images.device) if torch.is_autocast_enabled(images.device.type) else None
        self.network.to(images.device)
        with torch.autocast(images.device.type, dtype=half) if half else nullcontext():
            if self._ahead is not None:  # what lies behind the layer need not be computed
                z = self.network.normalise(images)
                for block in self._ahead:
                    z = block(z)
                return z
            with representations.recording(self.network, [self.layer]) as outputs:
                self.network(images)
            return outputs[self.layer]


def _blocks_until(network: nn.Module, layer: str) -> list[nn.Module] | None:
    """The blocks of one of our networks up to `layer`; None for others and for layers inside blocks."""
    if not isinstance(network, networks.ImageNetwork) or layer not in network.layer_names:
        return None
    return [getattr(network, name) for name in network.layer_names[: network.layer_names.index(layer) + 1]]


class Remembered(Reference):
    """Another reference's responses to the images of a data set, computed once and kept in half precision.

    For long sweeps without augmentation, where computing them at every step would take longer than training.

    Parameters
    ----------
    reference : of which to remember
    images : uint8 (n, 3, height, width), the training images
    """

    by_index = True

    def __init__(self, reference: Reference, images: Tensor):
        self.n_units, self.places, self._reference = reference.n_units, reference.places, reference
        self._responses = torch.cat([reference(part).to(torch.bfloat16) for part in images.split(500)])

    def __len__(self):
        return len(self._responses)

    def __call__(self, images: Tensor, which: Tensor | None = None, shape: tuple[int, int] | None = None) -> Tensor:
        return self._responses[which.cpu()].to(images.device).float()

    @property
    def on_test(self) -> Reference:
        return self._reference


def compared(
    output: Tensor, reference: Reference, images: Tensor, which: Tensor, seed: tuple[int, ...], n_positions: int
) -> tuple[Tensor, Tensor, int]:
    """Rows of a layer and of a reference that belong together, and how many of them an image has.

    Where both have places, `n_positions` random ones of each image; a reference without places is compared with the
    whole layer, averaged over `GRID` x `GRID` parts of the image.

    Parameters
    ----------
    output : (n, channels, rows, columns) or (n, units)

    Raises
    ------
    ValueError for a reference with places and a layer without.
    """
    if reference.places and output.ndim == 4:
        where = points(len(output), n_positions, seed)
        size = torch.tensor(output.shape[2:])
        where = ((where * size).floor() + 0.5) / size  # the centres of the layer's own places
        return rows_at(output, where), reference.at(images, where, which), n_positions
    if reference.places:
        raise ValueError("this layer has no places and its reference has: choose a layer of maps")
    rows = adaptive_avg_pool2d(output, GRID).flatten(1) if output.ndim == 4 else output
    return rows, reference(images, which), 1


def shown_and_held_out(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the stimuli that a reference brings, four of five are shown in training and every fifth is validated on."""
    numbers = np.arange(n)
    return numbers[numbers % 5 != 4], numbers[numbers % 5 == 4]
