"""Networks of the reader's own: a file of weights for a known architecture, or a function in a Python file.

    checkpoint:PATH.safetensors?architecture=NAME    width and number of classes are read from the file
    python:PATH.py:FUNCTION                          a function without arguments that gives a torch module
    python:PATH.py:FUNCTION?weights=PATH.safetensors the same, filled with these weights

`networks.check` and `networks.load` take these names like any other. Nothing but `python:` runs code of the reader's,
and only when a network is loaded, never when a name is checked.
"""

import ast
import hashlib
import importlib.util
import inspect
import sys
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from . import networks

SOURCES = ("checkpoint", "python")
# What training frameworks put in front of every name.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.")


def parse(name: str) -> tuple[str, Path, str, str | None]:
    """(source, path, architecture or function, file of weights) of a name.

    Raises
    ------
    ValueError for a name that lacks one of its parts.
    """
    source, _, rest = name.partition(":")
    path, mark, query = rest.partition("?")
    key, _, value = query.partition("=")
    if source == "checkpoint":
        foreign = value.rpartition(":")[0] not in ("", "torchvision", "timm")
        if not path or key != "architecture" or not value or "?" in value or foreign:
            raise ValueError(
                f"network {name!r}: say which architecture the weights are of, "
                f"'checkpoint:{path or 'PATH.safetensors'}?architecture=cnn6' (or torchvision:NAME, timm:NAME)"
            )
        return source, Path(path).expanduser(), value, path
    if mark and (key != "weights" or not value):
        raise ValueError(f"network {name!r}: after the function comes '?weights=FILE.safetensors' or nothing")
    file, _, function = path.rpartition(":")
    if not file or not function.isidentifier():
        raise ValueError(f"network {name!r}: name a file and a function in it, 'python:path/to/file.py:factory'")
    return source, Path(file).expanduser(), function, value or None


def label(name: str) -> str:
    """What tables and figures call the kind of network: "checkpoint:cnn6", "python:factory"."""
    source, _, what, _ = parse(name)
    return f"{source}:{what}"


def check(name: str) -> None:
    """Raise what `load` would for a name whose file or function is not there. Runs no code of the file.

    Raises
    ------
    FileNotFoundError, ValueError with what is wrong and what would be right.
    """
    source, path, what, weights = parse(name)
    for file in {str(path), weights} - {None}:
        if not Path(file).expanduser().is_file():
            raise FileNotFoundError(f"network {name!r}: there is no file {file!r} here ({Path.cwd()})")
        if source == "checkpoint" or file == weights:
            _refuse_pickle(name, Path(file))
    if source == "checkpoint":
        networks.check(what)
        return
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"network {name!r}: {path} is not a Python file that can be read ({error})") from error
    known = _names(body)
    if what not in known:
        raise ValueError(f"network {name!r}: {path} has no function {what!r}.{networks.near(what, known)}")


def _names(body: list[ast.stmt]) -> list[str]:
    """What a module's own statements define: functions, classes, assigned and imported names."""
    found = []
    for line in body:
        if isinstance(line, (ast.FunctionDef, ast.ClassDef)):
            found.append(line.name)
        elif isinstance(line, (ast.Assign, ast.AnnAssign)):
            targets = line.targets if isinstance(line, ast.Assign) else [line.target]
            found += [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        elif isinstance(line, (ast.Import, ast.ImportFrom)):
            found += [(alias.asname or alias.name) for alias in line.names]
    return found


def _refuse_pickle(name: str, path: Path) -> None:
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl"):
        raise ValueError(
            f"network {name!r}: {path.name} is a pickle, which can run code when it is opened, so it is not opened. "
            "Write its weights as safetensors once, where you trust it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
        )


def load(name: str, seed: int | None = None, trained: bool = True) -> nn.Module:
    """The network that a name stands for, in evaluation mode on the CPU.

    Parameters
    ----------
    seed : of the initial weights where `trained` is False
    trained : False for the same network with fresh weights

    Returns
    -------
    nn.Module that takes uint8 or [0, 1] images (n_images, 3, height, width). What comes from a Python file gets floats
    in [0, 1], less its attribute `mean` and over its attribute `std` (three numbers each) where it has them.

    Raises
    ------
    as `check`; ValueError for weights of another network, a function that fails or gives no module, and, where
    `trained` is False, a network that cannot be started anew (see `restartable`).
    """
    check(name)
    source, path, what, weights = parse(name)
    if source == "checkpoint":
        return _checkpoint(name, path, what, seed, trained)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network = _made(name, path, what, trained)
        if trained and weights:
            file = Path(weights).expanduser()
            networks.fill(network, _unwrapped(networks.weights_of(file, name)), file, name)
        network = _as_ours(network)
        return network.eval() if trained else _started_anew(network.eval(), name, path, what)


def restartable(network: nn.Module) -> bool:
    """Whether every weight belongs to a layer of PyTorch that knows how to draw it anew (`reset_parameters`)."""
    return all(hasattr(m, "reset_parameters") for m in network.modules() if list(m.parameters(recurse=False)))


def can_start_anew(name: str, network: nn.Module) -> bool:
    """Whether `load(name, trained=False)` can give the same network before its training."""
    source, path, what, _ = parse(name)
    return source == "checkpoint" or _takes_pretrained(_function(path, what)) or restartable(network)


# --- weights of a known architecture --------------------------------------------------------------


def _checkpoint(name: str, path: Path, architecture: str, seed: int | None, trained: bool) -> nn.Module:
    state = _unwrapped(networks.weights_of(path, name))
    with torch.random.fork_rng():
        plain = networks.bare(architecture)
    wanted = {key: value.shape for key, value in plain.state_dict().items()}
    options = {"n_classes": _classes(wanted, state, name)}
    if ":" not in architecture:
        with torch.random.fork_rng():
            wider = networks.bare(architecture, width=2.0).state_dict()
        scaled = {key: shape for key, shape in wanted.items() if wider[key].shape != shape}  # not the frozen filters
        options["width"] = _width(scaled, state, name)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network = networks.bare(architecture, **options)
    if trained:
        networks.fill(network, state, path, name)
    return network.eval()


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what a training framework put in front of every name."""
    for prefix in _WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            return _unwrapped({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def _classes(wanted: dict, state: dict[str, Tensor], name: str) -> int:
    """Rows of the last layer's weights: those of the last matrix of the architecture."""
    last = [key for key, shape in wanted.items() if len(shape) == 2 and key.endswith("weight")]
    if not last or last[-1] not in state or state[last[-1]].ndim != 2:
        key = last[-1] if last else "a last linear layer"
        raise ValueError(f"network {name!r}: the file has no {key}, which tells the number of classes")
    return len(state[last[-1]])


def _width(wanted: dict, state: dict[str, Tensor], name: str) -> float:
    """The factor on channels that gives every layer the number that the file has; the middle of what is possible."""
    last = [key for key, shape in wanted.items() if len(shape) == 2][-1]
    low, high = 0.0, float("inf")
    for key, shape in wanted.items():
        if key in state and len(shape) > 1 and key != last and state[key].ndim == len(shape):
            low = max(low, (len(state[key]) - 0.5) / shape[0])
            high = min(high, (len(state[key]) + 0.5) / shape[0])
    if low >= high or high == float("inf"):
        raise ValueError(
            f"network {name!r}: no single width explains the numbers of channels in the file: is it this architecture?"
        )
    exact = round((low + high) / 2 * 64) / 64  # widths are mostly simple fractions
    return exact if low < exact < high else (low + high) / 2


# --- functions in Python files ---------------------------------------------------------------------


@cache
def _module(path: Path, digest: str):
    """The file, run once for each content that it had."""
    print(f"Running the code in {path} (SHA-256 {digest[:12]}), because you named it. Name only files that you trust.")
    spec = importlib.util.spec_from_file_location(f"convergent_own_{digest[:12]}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles of the file look themselves up
    sys.path.insert(0, str(path.parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _function(path: Path, what: str):
    path = path.resolve()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        return getattr(_module(path, digest), what)
    except Exception as error:  # whatever the reader's code raises; it is shown as the cause
        raise ValueError(f"{path} could not be run: {type(error).__name__}: {error}") from error


def _takes_pretrained(function) -> bool:
    try:
        return "pretrained" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _made(name: str, path: Path, what: str, trained: bool) -> nn.Module:
    function = _function(path, what)
    options = {"pretrained": trained} if _takes_pretrained(function) else {}
    try:
        network = function(**options)
    except Exception as error:  # as above
        raise ValueError(
            f"network {name!r}: {what}() raised {type(error).__name__}: {error}. It is called without arguments "
            "(with pretrained=True or False, if it takes that)"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"network {name!r}: {what}() gives {type(network).__name__}, not a torch.nn.Module: return the network"
        )
    return network


def _as_ours(network: nn.Module) -> nn.Module:
    mean, std = getattr(network, "mean", None), getattr(network, "std", None)
    known = all(isinstance(x, (tuple, list)) and len(x) == 3 for x in (mean, std))
    size = getattr(network, "input_size", 0)
    size = size[-1] if isinstance(size, (tuple, list)) else size
    return networks.prepared(network, *((mean, std) if known else ((0, 0, 0), (1, 1, 1))), size)


def _started_anew(network: nn.Module, name: str, path: Path, what: str) -> nn.Module:
    if _takes_pretrained(_function(path, what)):
        return network
    if not restartable(network):
        raise ValueError(
            f"network {name!r} has weights that nobody knows how to draw anew: give {what} an argument `pretrained`"
        )
    for part in network.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return network
