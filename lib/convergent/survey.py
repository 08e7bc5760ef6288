"""What a reader's networks are, said before any work: layers, units, memory and time, or what is wrong with them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from . import certainty, compare, layer_choice, named_networks, networks, own_activations, own_networks
from .own_activations import Activations

TRIAL = 4  # images of a trial run
LEAST = 20  # stimuli: four in each of five folds
_PARTS = 2  # networks are read twice: trained, and before training


@dataclass(frozen=True)
class Found:
    """What one name stands for: how many networks, with which layers of how many units, and how long an image takes."""

    kind: str
    n_networks: int
    units: dict[str, int]
    seconds: float
    n_rows: int | None
    notes: tuple[str, ...] = ()


def survey(
    listed: str,
    layers: str = "",
    *,
    seeds: int = 4,
    n_images: int = 1000,
    size: int = 32,
    least: int = 2,
    comparisons: Callable[[Sequence[int]], float] = len,
    left_out: str = "",
    labelled: bool = False,
    restarted: bool = False,
) -> dict[str, list[str]]:
    """Look at every network that is named, print in plain words what was found, and choose its layers.

    Networks of the reader's own and of other packages are shown a few random images, so that what cannot work is known
    now; nothing is trained.

    Parameters
    ----------
    listed : as `named_networks.gather` takes it
    layers : as `layer_choice.choose` takes it
    seeds : of each of our architectures
    n_images, size : how many images of which height will be shown
    least : networks that the chapter needs
    comparisons : numbers of layers of two networks -> how many comparisons of two layers the chapter makes of them
    left_out : what the chapter leaves out where there are only activations, and why
    labelled : whether the chapter cannot do without classes
    restarted : whether it cannot do without untrained networks

    Returns
    -------
    kind of network -> names of the layers that are looked at

    Raises
    ------
    ValueError for fewer networks than `least`, or fewer stimuli than `LEAST`; files of activations of other stimuli;
    labels, `image_ids` beside networks, or untrained networks that are wanted and cannot be had; layers that no network
    has (with the nearest), that give no tensor, do not run, run more than once or share a module; a network that cannot
    be shown images of this size, that answers differently when it is asked again or among other images, or that gives
    no finite numbers.
    """
    named, counts, files = _named(listed, seeds)
    if (n := sum(counts.values())) < least:
        raise ValueError(
            f"networks={listed!r} names {n} network(s), and this chapter compares {least} or more: add names with a "
            "comma between them, such as 'cnn6?seeds=3'"
        )
    own_activations.agree(files)
    if files and len(files[0]) < LEAST:
        raise ValueError(f"{files[0].path} has {len(files[0])} stimuli: held-out scores need {LEAST}, better hundreds")
    alone = len(files) == n  # beside networks, classes are those of the images
    for file in [] if alone else files:
        named_networks.check_ids(file)
    if labelled and alone and all(file.labels is None for file in files):
        raise ValueError(f"{files[0].path} has no `labels`, and this chapter needs the class of every row: add them")
    if restarted:
        _refuse_unrestartable(listed, named)
    chosen = layer_choice.choose(
        {kind: list(one.layers) if isinstance(one, Activations) else one for kind, one in named.items()}, layers
    )
    found = []
    for kind, one in named.items():
        if isinstance(one, Activations):
            units = {name: one.layers[name].shape[1] for name in chosen[kind]}
            notes = (f"{len(one.classes)} classes",) if one.classes else ()
            notes += ("no labels: what needs classes is left out",) if alone and not one.classes else ()
            notes += (f"left out: {left_out}",) if left_out else ()
            found.append(Found(kind, counts[kind], units, 0.0, len(one), notes))
        elif kind in networks.ARCHITECTURES:
            found.append(Found(kind, counts[kind], dict.fromkeys(chosen[kind], 0), 0.0, None))
        else:
            units, seconds = inspect(one, chosen[kind], kind, size)
            found.append(Found(kind, counts[kind], units, seconds, None))
    _tell(found, len(files[0]) if files else n_images, comparisons)
    return chosen


def _refuse_unrestartable(listed: str, named: Mapping[str, nn.Module | Activations]) -> None:
    for name, _ in named_networks.names(listed):
        if named_networks.source(name) == "python":
            if not own_networks.can_start_anew(name, named[named_networks.kind(name)]):
                function = own_networks.parse(name)[2]
                raise ValueError(
                    f"network {name!r}: this chapter looks at untrained networks too, and nobody knows how to draw its "
                    f"weights anew. Give {function} an argument `pretrained`, which is False for fresh weights"
                )


def _named(listed: str, seeds: int) -> tuple[dict[str, nn.Module | Activations], dict[str, int], list[Activations]]:
    """kind -> one network (or file) of it, and how many there are; and all files."""
    named, counts, files = {}, {}, []
    for name, own in named_networks.names(listed):
        source, n = named_networks.source(name), 1
        if source == "activations":
            one = own_activations.read(name)
            known = [(kind, held) for kind, held in named.items() if isinstance(held, Activations)]
            kind = own_activations.kind(one, known)
            files.append(one)
        elif name in networks.ARCHITECTURES:
            with torch.random.fork_rng():
                kind, one, n = name, networks.bare(name, width=0.1), own or seeds
        else:
            kind, one = named_networks.kind(name), named_networks.enlarging(name, "network", 0)
            _same_layers(kind, named.get(kind), one)
        named.setdefault(kind, one)
        counts[kind] = counts.get(kind, 0) + n
    return named, counts, files


def _same_layers(kind: str, known: nn.Module | None, one: nn.Module) -> None:
    if known is not None and networks.layers(known) != networks.layers(one):
        raise ValueError(f"two networks are called {kind} and have different layers: rename one of the functions")


@torch.no_grad()
def inspect(network: nn.Module, layers: Sequence[str], kind: str, size: int = 32) -> tuple[dict[str, int], float]:
    """Units of each layer, and seconds for one image, from a trial on random images.

    Raises
    ------
    ValueError as `survey`.
    """
    _refuse_shared(network, layers, kind)
    pictures = torch.randint(0, 256, (TRIAL, 3, size, size), generator=torch.Generator().manual_seed(0))
    pictures = pictures.to(torch.uint8)
    first, seconds = _shown(network, pictures, layers, kind)
    for name, calls in first.items():
        _refuse_calls(name, calls, kind, layers)
    again, alone = _shown(network, pictures, layers, kind)[0], _shown(network, pictures[:1], layers, kind)[0]
    for name in layers:
        said = first[name][0].float()
        if not torch.isfinite(said).all():
            raise ValueError(f"{kind}: layer {name!r} gives numbers that are not finite. Are its weights whole?")
        tolerance = 1e-3 * said.abs().max()
        if (again[name][0].float() - said).abs().max() > tolerance:
            raise ValueError(
                f"{kind}: layer {name!r} answers the same image differently each time, in evaluation mode. Is dropout "
                "left on? Write dropout(x, training=self.training), or use nn.Dropout"
            )
        if (alone[name][0].float() - said[:1]).abs().max() > tolerance:
            raise ValueError(
                f"{kind}: what layer {name!r} says of an image depends on the other images beside it, in evaluation "
                "mode. Does a normalisation use the batch? Let it use its running averages"
            )
    return {name: _units(first[name][0]) for name in layers}, seconds / TRIAL


def _units(output: Tensor) -> int:
    return output.shape[-1] if output.ndim == 3 else output.shape[1]


def _shown(network: nn.Module, pictures: Tensor, layers: Sequence[str], kind: str) -> tuple[dict[str, list], float]:
    modules = dict(network.named_modules(remove_duplicate=False))
    with _calls({name: modules[name] for name in layers}) as calls:
        start = time.perf_counter()
        try:
            network.eval()(pictures)
        except Exception as error:  # whatever the reader's code raises; it is shown as the cause
            raise ValueError(
                f"{kind} cannot be shown images of {pictures.shape[-1]} by {pictures.shape[-1]} pixels "
                f"({type(error).__name__}: {error}). Give the network an attribute input_size, the height that it was "
                "made for: smaller images are enlarged to it. Or let its first layer take them"
            ) from error
        return calls, time.perf_counter() - start


@contextmanager
def _calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list]]:
    """Layer -> what it gave, once for each time that it ran."""
    given, handles = {name: [] for name in modules}, []

    def keep(name: str):
        def hook(module, inputs, output):
            given[name].append(output.detach().clone() if isinstance(output, Tensor) else output)

        return hook

    try:
        handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
        yield given
    finally:
        for handle in handles:
            handle.remove()


def _refuse_shared(network: nn.Module, layers: Sequence[str], kind: str) -> None:
    owners: dict[int, str] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    for name in layers:
        other = owners.setdefault(id(modules[name]), name)
        if other != name:
            raise ValueError(
                f"{kind}: layers {other!r} and {name!r} are one module: they cannot be told apart. "
                "Give each place in the network a module of its own, or choose one of them"
            )


def _refuse_calls(name: str, calls: list, kind: str, layers: Sequence[str]) -> None:
    others = ", ".join(layer for layer in layers if layer != name) or "none"
    remedy = f"Choose others with the parameter layers (looked at: {others})"
    if not calls:
        raise ValueError(f"{kind}: layer {name!r} does not run when the network is shown images. {remedy}")
    if len(calls) > 1:
        raise ValueError(
            f"{kind}: layer {name!r} is one module that runs {len(calls)} times in one pass, and each run would "
            f"overwrite the one before. {remedy}, or give each place a module of its own"
        )
    if not isinstance(calls[0], Tensor):
        raise ValueError(
            f"{kind}: layer {name!r} gives a {type(calls[0]).__name__}, not a tensor. Choose a layer inside it, or let "
            f"it return its tensor alone. {remedy}"
        )
    if calls[0].ndim not in (2, 3, 4):
        raise ValueError(f"{kind}: layer {name!r} gives {tuple(calls[0].shape)}: 2 to 4 dimensions are read. {remedy}")


# --- in plain words --------------------------------------------------------------------------------


def _tell(found: Sequence[Found], n_images: int, comparisons: Callable[[Sequence[int]], float]) -> None:
    for one in found:
        names = list(one.units)
        shown = f"{names[0]} … {names[-1]}" if len(names) > 2 else ", ".join(names)
        units = f", {min(one.units.values())} to {max(one.units.values())} units" if any(one.units.values()) else ""
        rows = f", {one.n_rows} stimuli" if one.n_rows else ""
        few = "network" if one.n_networks == 1 else "networks"
        notes = "".join(f"; {note}" for note in one.notes)
        print(f"{one.kind}: {one.n_networks} {few}, {len(names)} layers ({shown}{units}){rows}{notes}")
    own = [one for one in found if any(one.units.values())]
    if own:
        places = 1 if any(one.n_rows for one in found) else named_networks.PLACES
        print(_estimate(found, n_images * places, n_images, comparisons))


def _estimate(found: Sequence[Found], n_rows: int, n_images: int, comparisons) -> str:
    """Memory of the activations, and time for reading and comparing, from the trial and one timed comparison."""
    each = [(one, one.n_networks) for one in found]
    n_bytes = sum(4.0 * n_rows * sum(one.units.values()) * n * _PARTS for one, n in each)
    reading = sum(one.seconds * n_images * n * _PARTS for one, n in each)
    kinds = [one for one, n in each for _ in range(n)]
    pairs = [(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :]]
    timed = {width: _timed(min(n_rows, 4000), width) for one in found for width in set(one.units.values()) if width}
    comparing = 0.0
    for a, b in pairs:
        own = [timed[width] for one in (a, b) for width in one.units.values() if width]
        comparing += (np.mean(own) if own else 0) * comparisons([len(a.units), len(b.units)])
    seconds = reading + comparing
    said = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return (
        f"The activations take about {max(1, n_bytes / 1e6):.0f} MB; reading and comparing takes very roughly {said}."
    )


def _timed(n_rows: int, width: int) -> float:
    """Seconds for one comparison of two layers, from one of at most 128 units."""
    small = min(width, 128)
    return _seconds(n_rows, small) * (width / small) ** 2  # as measured from 128 to 1,024 units


@cache
def _seconds(n_rows: int, small: int) -> float:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, max(n_rows, 20), small)).astype(np.float32)
    start = time.perf_counter()
    with certainty.silent_units_expected():
        compare.compare({"a": a}, {"b": b}, ["linear", "procrustes", "soft_matching"], nulls=0, progress=False)
    return time.perf_counter() - start
