"""What a reproduction is compared from: a sweep's run, any executed notebook, the book's run, a published table."""

import io
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from . import claims_ledger, execution, paths, published, results


class DiffError(Exception):
    """What cannot be compared, and why."""


@dataclass(frozen=True)
class Side:
    """One run.

    Attributes
    ----------
    name : for people
    chapter : name of the notebook without folder and ending
    values : recorded numbers and texts by name; without kept tables, and of claims only the verdicts
    tables : kept tables by name
    parameters : of the run, as text
    told : what the run says of itself, as `results.provenance`
    notebook, library : hashes of the sources; empty where they are not known
    versions : package -> version, as far as known
    """

    name: str
    chapter: str
    values: dict
    tables: dict[str, pd.DataFrame]
    parameters: dict[str, str]
    told: dict[str, str] = field(default_factory=dict)
    notebook: str = ""
    library: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Side:
    """The run at a path: an executed notebook, or a folder of a sweep with `notebook.ipynb`.

    Raises
    ------
    DiffError for what is neither, or was not executed.
    """
    file = path / "notebook.ipynb" if path.is_dir() else path
    if not file.is_file():
        hint = "; a sweep has its runs one level deeper, in runs/" if (path / "runs").is_dir() else ""
        raise DiffError(f"{path} is no run: give an executed notebook, or a folder with notebook.ipynb{hint}")
    try:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        recorded = results.read_records(notebook)
        told = results.read_stamp(notebook)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DiffError(f"{file} is no executed notebook") from error
    if not recorded:
        raise DiffError(f"{file} holds no recorded value: execute it first, as `papermill {file} out.ipynb` does")
    about = {}
    if (file.parent / "provenance.json").is_file():
        about = json.loads((file.parent / "provenance.json").read_text(encoding="utf-8"))
    chapter, parameters = _repeat(told)
    if not parameters:
        parameters = {name: str(value) for name, value in _of_papermill(notebook).items()}
    return Side(
        str(path),
        chapter or file.stem,
        {name: value for name, value in recorded.items() if not name.startswith(("table_", claims_ledger.RECORD))},
        {n.removeprefix("table_"): pd.read_csv(io.StringIO(t)) for n, t in recorded.items() if n.startswith("table_")},
        parameters,
        told,
        execution.source_hash(notebook),
        about.get("library", ""),
        about.get("versions", {}),
    )


def _repeat(told: dict) -> tuple[str, dict[str, str]]:
    """Chapter and parameters from the command that repeats a run."""
    words = shlex.split(told.get("repeat", ""))
    parameters = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p" and i + 2 < len(words)}
    return (Path(words[1]).stem if len(words) > 1 else ""), parameters


def _of_papermill(notebook: dict) -> dict:
    """Parameters of a notebook without a stamp: its defaults, and what papermill put in."""
    try:
        defaults = {name: default for name, (_, default) in execution.declared(notebook).items()}
    except ValueError:
        defaults = {}
    return defaults | notebook["metadata"].get("papermill", {}).get("parameters", {})


def of_book(side: Side) -> Side | None:
    """The newest execution of the same chapter and tier that `make book` made here; None where there is none."""
    folder = paths.data().parent / "_build" / "executed"
    made = sorted(folder.glob(f"{side.chapter}-*.ipynb"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in made:
        found = read(path)
        if found.parameters.get("tier") == side.parameters.get("tier"):
            return found
    return None


def of_published(side: Side) -> Side | None:
    """The published tables of the names that a run keeps, on the same image set; None where there are none."""
    title = side.told.get("data", "").split(", SHA-256")[0]
    tables, told = {}, {}
    for name in side.tables:
        try:
            found = published.load(name)
        except FileNotFoundError:
            continue
        if title in found:
            tables[name], told = found[title], found[title].attrs
    if not tables:
        return None
    chapter, parameters = _repeat(told)
    return Side(f"published run on {title}", chapter, {}, tables, parameters, told)
