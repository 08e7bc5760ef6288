"""What the metrics accept: checks that answer bad input with one clear sentence, before any work is done."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def representation(values, name: str = "X", least: int = 3) -> Tensor:
    """A finite floating-point tensor (n_stimuli, n_units) from an array, a tensor or a data frame.

    float32 and float64 stay what they are, half precision becomes float32, integers become float64. Tensors keep their
    device, except on Apple GPUs, which have no float64: those move to the CPU.

    Raises
    ------
    ValueError
        for anything but two dimensions of numbers, fewer than `least` stimuli, no units, or values that are not finite.
    """
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.from_numpy(_array(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers ({error}): give (n_stimuli, n_units)") from error
    if tensor.is_complex():
        raise ValueError(f"{name} is complex: give real responses, for instance their magnitudes")
    if tensor.ndim != 2:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}: expected (n_stimuli, n_units); "
            "representations.extract gives that shape, and flatten(1) makes it from a layer's output"
        )
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    if not tensor.is_floating_point():
        tensor = tensor.double()
    elif tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    n_stimuli, n_units = tensor.shape
    if n_units == 0:
        raise ValueError(f"{name} has no units: leave this layer out")
    if n_stimuli < least:
        raise ValueError(f"{name} has {n_stimuli} stimuli: at least {least} are needed to compare, better hundreds")
    bad = ~torch.isfinite(tensor)
    if bad.any():
        row, unit = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are not finite, the first in stimulus {row}, unit {unit} "
            f"({float(tensor[row, unit])}): leave those stimuli or units out"
        )
    return tensor


def _array(values) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"its type is {array.dtype}")
    if array.dtype.kind == "b":
        array = array.astype(np.float64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8 or array.dtype.kind == "u":
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False)
    return array if array.flags.writeable else array.copy()  # torch warns of memory that it must not write to


def pair(X, Y, names: tuple[str, str] = ("X", "Y")) -> tuple[Tensor, Tensor]:
    """Both representations, of one precision and on one device.

    Raises
    ------
    ValueError as `representation`, and where the numbers of stimuli or the devices differ.
    """
    X, Y = representation(X, names[0]), representation(Y, names[1])
    if len(X) != len(Y):
        raise ValueError(
            f"{names[0]} has {len(X)} stimuli and {names[1]} has {len(Y)}: row i of both must be the same stimulus. "
            "Did one data loader drop its last batch?"
        )
    if X.device != Y.device:
        raise ValueError(f"{names[0]} is on {X.device} and {names[1]} on {Y.device}: move both to one device")
    dtype = torch.promote_types(X.dtype, Y.dtype)
    return X.to(dtype), Y.to(dtype)


def varying(varies: Tensor, name: str) -> Tensor:
    """The numbers of the units that vary (n_kept,), given whether each does.

    Raises
    ------
    ValueError where none does.
    """
    if not varies.any():
        raise ValueError(f"{name} does not vary: all stimuli are identical to it. Leave this layer out")
    return varies.nonzero()[:, 0]


def warn_of_constant(counts: dict[str, tuple[int, int]], stacklevel: int = 5) -> None:
    """One warning for all representations that have constant units: name -> (units that vary, all units).

    `stacklevel` is that of the call of a metric, which asks `moments.of` inside its limit of threads.
    """
    told = [f"{n - kept} of {n} units of {name}" for name, (kept, n) in counts.items() if kept < n]
    if told:
        shown = ", ".join(told[:4]) + (f" and some of {len(told) - 4} more" if len(told) > 4 else "")
        warnings.warn(f"constant units are left out of averages: {shown}", stacklevel=stacklevel)


def whole(value, name: str, least: int, most: int | None = None, remedy: str = "") -> int:
    """`value` as an int.

    Raises
    ------
    ValueError where it is no whole number, or not between `least` and `most`.
    """
    known = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if not known or value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name}={value!r}: expected a whole number, {limits}{'; ' + remedy if remedy else ''}")
    return int(value)


def number(value, name: str, least: float) -> float:
    """`value` as a float.

    Raises
    ------
    ValueError where it is no finite number of at least `least`.
    """
    known = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))
    if not known or not np.isfinite(value) or value < least:
        raise ValueError(f"{name}={value!r}: expected a number of at least {least:g}")
    return float(value)


def one_of(value, name: str, allowed: Iterable[str]) -> str:
    """`value`.

    Raises
    ------
    ValueError where it is not among `allowed`.
    """
    if value not in tuple(allowed):
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}")
    return value
