"""The claims of `claims.yml`, each with its rule, and what executed notebooks found of them.

A box of a chapter (`claims.show`) is filled from here and records what it shows; the book's ledger (book/claims.md) and
the check of its prose read the same records back.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from . import results

FILE = Path(__file__).with_name("claims.yml")
RECORD = "ledger_"  # what a box records begins with this
Condition = str | tuple[str, str]  # of a push: the push and what was done


@dataclass(frozen=True)
class Claim:
    """That `high` exceeds `low` by more than `margin`; the head of `claims.yml` explains each field."""

    id: str
    notebook: str
    paper: str
    table: str
    statistic: str
    claim: str
    source: str
    high: Condition
    low: Condition
    statement: str
    margin: float = 0.0
    written: str = "before"


@dataclass(frozen=True)
class Found:
    """What a box shows of a claim: by title of the run what `claims.compared` gave, or why there is nothing."""

    claim: Claim
    box: str
    runs: dict[str, dict | str]


@cache
def _file() -> dict:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def rule() -> str:
    """The rule of every verdict, in words."""
    return _file()["rule"].strip()


def papers() -> dict[str, str]:
    """Key -> name, of the works whose claims are tested, in the order of the ledger."""
    return _file()["papers"]


@cache
def every() -> dict[str, Claim]:
    """id -> claim, in the order of the chapters and their boxes.

    Raises
    ------
    ValueError for a claim that lacks something, has what no claim has, or names a paper that is not listed.
    """
    found = {}
    for notebook, chapter in _file()["chapters"].items():
        shared = {name: value for name, value in chapter.items() if name != "claims"}
        for name, about in chapter["claims"].items():
            if name in found:
                raise ValueError(f"claim {name!r} stands twice in {FILE.name}: give one of the two another id")
            found[name] = _claim(name, notebook, shared | about)
    return found


def _claim(name: str, notebook: str, about: dict) -> Claim:
    about = {key: tuple(value) if isinstance(value, list) else value for key, value in about.items()}
    about.setdefault("statement", about.get("claim", "…")[:1].upper() + about.get("claim", "…")[1:] + ".")
    try:
        claim = Claim(id=name, notebook=notebook, **about)
    except TypeError as error:
        raise ValueError(f"claim {name!r} in {FILE.name}: {str(error).partition(') ')[2]}") from error
    if claim.statement.startswith("…"):
        raise ValueError(f"claim {name!r} goes on from the row above it: give it a statement of its own")
    if claim.paper not in papers() or claim.written not in ("before", "after"):
        raise ValueError(
            f"claim {name!r}: paper {claim.paper!r}, written {claim.written!r}; see the head of {FILE.name}"
        )
    return claim


def get(name: str) -> Claim:
    """The claim of that id. Raises ValueError for an id that is not in `claims.yml`, with the nearest."""
    if name not in every():
        near = difflib.get_close_matches(name, every(), n=1)
        raise ValueError(f"no claim {name!r} in {FILE.name}." + (f" Did you mean {near[0]!r}?" if near else ""))
    return every()[name]


def ids(prefix: str) -> list[str]:
    """Ids that begin with `prefix` ("depth_"), in the order of the file. Raises ValueError where there is none."""
    found = [name for name in every() if name.startswith(prefix)]
    if not found:
        raise ValueError(f"no claim in {FILE.name} has an id that begins with {prefix!r}")
    return found


def record(box: str, name: str, runs: Mapping[str, dict | str]) -> None:
    """Store in the executed notebook what a box shows of a claim, as `found` reads it back."""
    results.record(f"{RECORD}{box}_{name}", json.dumps({"id": name, "box": box, "runs": runs}), show=False)


def found(notebook) -> list[Found]:
    """What the boxes of an executed notebook (a path, or the notebook itself) show, in their order."""
    kept = [json.loads(text) for name, text in results.read_records(notebook).items() if name.startswith(RECORD)]
    return [Found(get(one["id"]), one["box"], one["runs"]) for one in kept]
