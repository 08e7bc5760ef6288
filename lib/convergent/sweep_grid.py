"""The parameter sets of a sweep: read from YAML, and checked against the notebook before any of them runs."""

import itertools
import json
from pathlib import Path

import yaml

from .results import as_declared, nearest

LAYOUT = (
    "Write `grid:` with a list of values for each parameter (every combination is run), or `runs:` with a list of "
    "parameter sets; and `fixed:` for what all runs share."
)


def read(path: Path, fixed: dict | None = None) -> list[dict]:
    """The parameter sets of a YAML file, in its order; those of `grid` with the last parameter changing fastest.

    Parameters
    ----------
    path : a file with `grid:` or `runs:`, and `fixed:` or not
    fixed : parameters for all runs, stronger than the file's `fixed`

    Raises
    ------
    FileNotFoundError for a file that is not there.
    ValueError for one of another layout, without runs, or that names one set twice.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not here. {LAYOUT}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict) or set(found) - {"grid", "runs", "fixed"} or len({"grid", "runs"} & set(found)) != 1:
        raise ValueError(f"{path}: {_top(found)} {LAYOUT}")
    sets = _grid(path, found["grid"]) if "grid" in found else _runs(path, found["runs"])
    shared = found.get("fixed") or {}
    if not isinstance(shared, dict):
        raise ValueError(f"{path}: fixed is {shared!r}: write a value for each parameter.")
    both = sorted(set(shared) & {name for one in sets for name in one})
    if both:
        raise ValueError(f"{path}: {', '.join(both)} stands in fixed and in the runs: say it in one place.")
    sets = [one | shared | (fixed or {}) for one in sets]
    told = [json.dumps(one, sort_keys=True, default=str) for one in sets]
    twice = next((one for one in told if told.count(one) > 1), None)
    if twice:
        raise ValueError(f"{path} names {twice} twice: each set once.")
    return sets


def _top(found) -> str:
    keys = ", ".join(map(str, found)) if isinstance(found, dict) and found else type(found).__name__
    return f"at its top stands {keys}."


def _grid(path: Path, grid) -> list[dict]:
    if not isinstance(grid, dict) or not grid:
        raise ValueError(f"{path}: grid is {grid!r}. {LAYOUT}")
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: {name} in grid is {values!r}: write a list of values, such as [{values}].")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _runs(path: Path, runs) -> list[dict]:
    if not isinstance(runs, list) or not runs or not all(isinstance(one, dict) for one in runs):
        raise ValueError(f"{path}: runs is {runs!r:.80}. {LAYOUT}")
    return runs


def check(sets: list[dict], declared: dict[str, tuple[str, object]], source: str) -> list[dict]:
    """The sets with the notebook's defaults filled in, the parameters in the notebook's order.

    Parameters
    ----------
    declared : parameter -> (annotation, default), as `execution.declared` gives them
    source : what to call the file in an error

    Raises
    ------
    ValueError
        For names that the notebook does not have, with the nearest, and values of another type, all in one message.
    """
    wrong, fitting = {}, []
    for one in sets:
        fitting.append({})
        for name, value in one.items():
            if name not in declared:
                wrong[name] = f"unknown parameter {name!r}.{nearest(name, declared)}"
                continue
            try:
                fitting[-1][name] = as_declared(name, value, declared[name][0])
            except TypeError as error:
                wrong[name, repr(value)] = f"{error}{_hint(value, declared[name][0])}"
    if wrong:
        told = "\n  ".join(wrong.values())
        raise ValueError(f"{source}: nothing was run.\n  {told}\n  Parameters: {', '.join(declared)}.")
    return [{name: one.get(name, default) for name, (_, default) in declared.items()} for one in fitting]


def _hint(value, annotation: str) -> str:
    if isinstance(value, str) and "str" not in annotation:
        try:
            return f" YAML reads this as text: write {float(value)!r}."
        except ValueError:
            return ""
    if isinstance(value, list):
        return " A list is one value here: each value of a grid is one of the list."
    return " Put it in quotes." if annotation == "str" and isinstance(value, bool) else ""
