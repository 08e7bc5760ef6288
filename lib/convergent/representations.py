"""Representations: what the layers of a network say about images, as matrices of stimuli x units."""

import difflib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from . import networks

SPATIAL = ("positions", "pool", "flatten")


@contextmanager
def recording(network: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While open, every forward pass of `network` leaves the outputs of `layers` in the dictionary that it gives.

    The hooks are removed on leaving, also after an exception.

    Raises
    ------
    ValueError for a name that is no module of the network, with the nearest names.
    """
    layers, modules, outputs, handles = list(layers), dict(network.named_modules()), {}, []
    for name in layers:
        if name not in modules or name == "":
            near = difflib.get_close_matches(name, modules, n=3) or networks.layers(network)
            raise ValueError(f"layer {name!r} is not in this network. Near names: {', '.join(near)}")
    try:
        for name in layers:

            def keep(module, inputs, output, name=name):
                if not isinstance(output, Tensor):
                    raise ValueError(
                        f"layer {name!r} gives a {type(output).__name__}, not a tensor: choose a layer inside it"
                    )
                # A copy: an in-place ReLU after the layer would otherwise overwrite what it said.
                outputs[name] = output.detach().clone()

            handles.append(modules[name].register_forward_hook(keep))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def extract(
    network: nn.Module,
    images: Tensor,
    layers: Iterable[str] | None = None,
    spatial: str = "positions",
    n_positions: int = 4,
    grid: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    as_numpy: bool = True,
) -> dict[str, np.ndarray | Tensor]:
    """Activations of named layers for images.

    Parameters
    ----------
    network : any module; it runs in evaluation mode under `inference_mode` on its own device
    images : (n_images, 3, height, width), uint8 or floats as the network takes them
    layers : names as in `network.named_modules()`; None takes `networks.layers(network)`
    spatial : what a stimulus is in a layer of shape (n_images, channels, height, width)
        "positions" : `n_positions` points of each image, drawn with `seed`, the same for every layer whatever the
            size of its map; rows of one image lie together
        "pool" : the image, its channels averaged over places
        "flatten" : the image, every channel at every place a unit
        Layers without places (n_images, units) have one row an image under each of the three; with "positions" these
        rows are not repeated. Token sequences (n_images, tokens, units) are treated as places.
    n_positions : points of an image; a map with fewer places gives some of them more than once
    grid : with "flatten", average the places of larger maps down to `grid` x `grid` first
    as_numpy : NumPy arrays; otherwise tensors on the network's device

    Returns
    -------
    dict layer -> float32 (n_stimuli, n_units)

    Raises
    ------
    ValueError
        for unknown layers, an unknown `spatial`, no images, a layer that did not run or gives no such matrix.
    """
    parts = {}
    for _, rows in batches(network, images, layers, spatial, n_positions, grid, seed, batch_size, as_numpy):
        for name, part in rows.items():
            parts.setdefault(name, []).append(part)
    return {name: (np.concatenate if as_numpy else torch.cat)(part) for name, part in parts.items()}


def batches(
    network: nn.Module,
    images: Tensor,
    layers: Iterable[str] | None = None,
    spatial: str = "positions",
    n_positions: int = 4,
    grid: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    as_numpy: bool = True,
    first: int = 0,
) -> Iterator[tuple[int, dict[str, np.ndarray | Tensor]]]:
    """What `extract` gives, a batch of images at a time: (number of the first image, layer -> rows).

    `first` is the number of images[0] where `images` are a part of more: which places of an image are kept follows
    from its number.

    Raises
    ------
    ValueError as `extract`.
    """
    if spatial not in SPATIAL:
        raise ValueError(f"spatial={spatial!r} is not one of {', '.join(SPATIAL)}")
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: expected (n_images, 3, height, width), at least one"
        )
    if n_positions < 1 or (grid is not None and (grid < 1 or spatial != "flatten")):
        raise ValueError(
            f"n_positions={n_positions}, grid={grid}: keep at least one place of each image;"
            " a grid needs spatial='flatten'"
        )
    layers = networks.layers(network) if layers is None else list(dict.fromkeys(layers))
    where = next((p.device for p in network.parameters()), torch.device("cpu"))
    for start in range(0, len(images), batch_size):
        # The network is handed back after each batch: between two of them its owner may do what they like with it.
        with _evaluating(network), recording(network, layers) as outputs, torch.inference_mode():
            network(images[start : start + batch_size].to(where))
            rows = {}
            for name in layers:
                if name not in outputs:
                    raise ValueError(f"layer {name!r} did not run in the forward pass: choose another")
                output = outputs.pop(name)
                if output.ndim not in (2, 3, 4):
                    raise ValueError(f"layer {name!r} gives {tuple(output.shape)}: choose one of 2 to 4 dimensions")
                if grid and output.ndim == 4 and max(output.shape[2:]) > grid:
                    output = adaptive_avg_pool2d(output, grid)
                part = _rows(output, spatial, n_positions, seed, first + start).float()
                rows[name] = part.cpu().numpy() if as_numpy else part
        yield start, rows


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():  # one by one: a part may have been frozen
            module.training = training


def _rows(output: Tensor, spatial: str, n_positions: int, seed: int, start: int) -> Tensor:
    """(n_images, ...) to (n_stimuli, n_units)."""
    if output.ndim == 2:
        return output
    if spatial == "pool":
        return output.flatten(2).mean(2) if output.ndim == 4 else output.mean(1)
    if spatial == "flatten":
        return output.flatten(1) if output.ndim == 4 else output.transpose(1, 2).flatten(1)
    shape = tuple(output.shape[2:]) if output.ndim == 4 else (output.shape[1],)
    places = output.flatten(2).transpose(1, 2) if output.ndim == 4 else output  # (n_images, places, channels)
    # One generator an image: which places are kept does not depend on the batch size or on the network.
    chosen = np.stack([_places(shape, n_positions, seed, start + i) for i in range(len(places))])
    chosen = torch.from_numpy(chosen).to(output.device)
    return places.gather(1, chosen.unsqueeze(2).expand(-1, -1, places.shape[2])).reshape(-1, places.shape[2])


def _places(shape: tuple[int, ...], n: int, seed: int, image: int) -> np.ndarray:
    """Numbers of `n` places in a map of `shape`: points of the image, the same for every layer, whatever its size.

    The points lie in different cells of a grid over the image, so that maps as fine as that grid give none twice.
    """
    rng = np.random.default_rng((seed, image))
    cells = n if len(shape) == 1 else int(np.ceil(n**0.5))
    chosen = np.sort(rng.choice(cells ** len(shape), n, replace=False))
    at = (np.stack(np.unravel_index(chosen, (cells,) * len(shape)), 1) + rng.random((n, len(shape)))) / cells
    return np.ravel_multi_index(tuple((at * shape).astype(np.int64).T), shape)


def save(path: str | Path, layers: Mapping[str, np.ndarray | Tensor]) -> None:
    """Write layers to an npz file, one array (n_stimuli, n_units) each, whole or not at all."""
    path = Path(path)
    if not layers:
        raise ValueError("no layers to save")
    arrays = {name: np.asarray(value.cpu() if isinstance(value, Tensor) else value) for name, value in layers.items()}
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(unfinished, path)


def load(path: str | Path) -> dict[str, np.ndarray]:
    """Layers from an npz file: ours, or one of your own.

    Returns
    -------
    dict layer -> float32 array (n_stimuli, n_units), in the file's order

    Raises
    ------
    FileNotFoundError where there is no such file.
    ValueError for a file that is no npz or needs pickle, an array that is not two-dimensional or not numeric, layers
    with different numbers of rows, or values that are not finite.
    """
    path = Path(path)
    return checked(path, arrays(path))


def arrays(path: Path) -> dict[str, np.ndarray]:
    """What an npz file holds, by name. Raises as `load` for a file that is none, or that needs pickle."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not here: give the path of an npz file with one array a layer")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not an npz file of plain arrays ({error}): write it with numpy.savez") from error


def checked(path: Path, layers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Layers of a file as float32 (n_stimuli, n_units). Raises ValueError as `load` does."""
    found = {}
    for name, rows in layers.items():
        if rows.ndim > 2 and rows.dtype.kind in "fiu":
            raise ValueError(
                f"{path}: {name!r} has shape {rows.shape}; a layer is (n_stimuli, n_units). Average over places, as in "
                f"{name}.reshape({len(rows)}, {rows.shape[1]}, -1).mean(2) where units come second, or keep each place "
                f"as a unit, {name}.reshape({len(rows)}, -1)"
            )
        if rows.ndim != 2 or rows.dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name!r} is {rows.dtype} {rows.shape}; a layer is numbers (n_stimuli, n_units)")
        with np.errstate(over="ignore"):  # what is too large for float32 is refused in the next line
            found[name] = rows.astype(np.float32, copy=False)
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{path}: {name!r} holds values that are not finite in float32")
    if not found:
        raise ValueError(f"{path} holds no layers")
    if len({len(rows) for rows in found.values()}) != 1:
        counts = ", ".join(f"{name}: {len(rows)}" for name, rows in found.items())
        raise ValueError(f"{path}: layers differ in stimuli ({counts}): row i must be the same stimulus in all")
    return found
