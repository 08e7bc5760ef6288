"""Which layers of a network are looked at: by name, by pattern, or so many, evenly over its depth."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from torch import nn

from . import networks

MOST = 12  # layers of a network that are taken where nothing is said


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spaced, first and last among them."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]


def check(choice: str) -> None:
    """Raise ValueError for a choice that no network can answer: fewer than two layers."""
    if choice.strip().isdecimal() and int(choice) < 2:
        raise ValueError(f"layers={choice!r}: look at two layers or more, or leave it empty for up to {MOST}")


def choose(kinds: Mapping[str, nn.Module | Sequence[str]], choice: str = "") -> dict[str, list[str]]:
    """The layers of each kind of network that a reader asked for.

    Parameters
    ----------
    kinds : name -> a network, or the names of its layers where there are only activations
    choice : "" for up to `MOST` layers, evenly over depth; "5" for five; otherwise names and patterns with commas
        between them, such as "layer1,layer4.*": "*" stands for anything but a dot, and a name that one kind lacks is
        looked for in the others

    Returns
    -------
    name -> layers, in the network's order

    Raises
    ------
    ValueError for a name or pattern that no network has, with the nearest; for a network of which fewer than two are
    left.
    """
    check(choice)
    usual = {kind: networks.layers(one) if isinstance(one, nn.Module) else list(one) for kind, one in kinds.items()}
    every = {
        kind: [name for name, _ in one.named_modules(remove_duplicate=False) if name]
        if isinstance(one, nn.Module)
        else list(one)
        for kind, one in kinds.items()
    }
    if choice.strip().isdecimal() or not choice.strip():
        return {kind: spread(names, int(choice or MOST)) for kind, names in usual.items()}
    wanted = [part.strip() for part in choice.split(",") if part.strip()]
    for pattern in wanted:
        if not any(_fits(name, pattern) for names in every.values() for name in names):
            known = list(dict.fromkeys(name for names in usual.values() for name in names))
            deeper = list(dict.fromkeys(name for names in every.values() for name in names))
            hint = networks.near(pattern, known) or networks.near(pattern, deeper)
            shown = ", ".join(known[:MOST]) + (f" and {len(known) - MOST} more" if len(known) > MOST else "")
            raise ValueError(f"layers={choice!r}: no network has a layer {pattern!r}.{hint} There are {shown}.")
    found = {kind: [n for n in names if any(_fits(n, p) for p in wanted)] for kind, names in every.items()}
    for kind, names in found.items():
        if len(names) < 2:
            shown = ", ".join(spread(usual[kind], MOST))
            raise ValueError(
                f"layers={choice!r} leaves {kind} with {len(names)} layer(s): name two or more of each network. "
                f"{kind} has {shown}."
            )
    return found


def _fits(name: str, pattern: str) -> bool:
    """Part by part between the dots, so that "layer*" does not mean what lies inside of layer1."""
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
