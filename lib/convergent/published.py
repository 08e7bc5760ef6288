"""Result tables of runs that are too long for a reader, or on images that cannot be shipped.

A notebook keeps its tables with `keep`. `python -m convergent.published notebook.ipynb -p dataset cifar10` runs it and
writes its tables to `data/published/`, with where they came from; `beside` puts them next to the reader's own.
"""

import argparse
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from . import paths, results

WORDS = {"labels": str}  # pandas takes a column of "true" for truth values
AS_TEXT = {"dtype": str, "keep_default_na": False}


def keep(name: str, table: pd.DataFrame) -> None:
    """Store a tidy table in the executed notebook, without showing it."""
    results.record(f"table_{name}", table.to_csv(index=False, float_format="%.6g"), show=False)


def read(name: str) -> tuple[pd.DataFrame, dict]:
    """The published table `name` as it lies in its file, and what the file beside it says of where it came from.

    Raises FileNotFoundError for a table that was not published, with the names of those that were.
    """
    folder = paths.data() / "published"
    path = folder / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"no published table {name!r}; there are: {', '.join(sorted(p.stem for p in folder.glob('*.csv')))}"
        )
    return pd.read_csv(path, dtype=WORDS), json.loads((folder / f"{name}.json").read_text())


def complete(
    path: Path,
    key: Sequence[str],
    wanted: Sequence[tuple],
    rows: Callable[[tuple], pd.DataFrame | None],
) -> pd.DataFrame:
    """Add to the table at `path` what it lacks, one key at a time.

    A killed run loses the one that it was at. Rows that are there are left as they are, to the last digit; those that
    are not wanted (any more) stand at the end.

    Parameters
    ----------
    key : columns that say what a row is of
    wanted : values of these columns, in the order that the table is to have
    rows : the rows of one key, among them the columns of `key`; None to leave it out

    Returns
    -------
    The whole table, as text
    """
    found = _so_far(path, key)
    place = {tuple(map(str, one)): i for i, one in enumerate(wanted)}
    for one in missing(path, key, wanted):
        if (new := rows(one)) is None:
            continue
        found = pd.concat([found, new.astype(str)])
        order = [place.get(old, len(place)) for old in found[list(key)].itertuples(index=False, name=None)]
        found = found.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
        unfinished = path.with_suffix(".unfinished")
        found.to_csv(unfinished, index=False, lineterminator="\n")
        os.replace(unfinished, path)
    return found


def missing(path: Path, key: Sequence[str], wanted: Sequence[tuple]) -> list[tuple]:
    """Those of `wanted` that the table at `path` has no row of; parameters as for `complete`."""
    there = set(_so_far(path, key)[list(key)].itertuples(index=False, name=None))
    return [one for one in wanted if tuple(map(str, one)) not in there]


@contextmanager
def said_where_from(path: Path, title: str, command: str) -> Iterator[None]:
    """Say beside the table at `path` where it came from, if this block changes it or nothing is said yet.

    What is said of a table that stays as it is stays too: what depends on shipped data is not made again for a date.

    Parameters
    ----------
    title : what the table holds
    command : that makes or completes it
    """
    before = path.read_bytes() if path.exists() else None
    yield
    beside = path.with_suffix(".json")
    after = path.read_bytes() if path.exists() else None
    if after is None or (beside.exists() and after == before):
        return
    told = results.provenance(path.stem) | {"repeat": command}
    told = {key: said for key, said in told.items() if key not in ("duration", "memory")}  # of this, not of training
    beside.write_text(json.dumps({"title": title, "provenance": told}, indent=1) + "\n")


def _so_far(path: Path, key: Sequence[str]) -> pd.DataFrame:
    return pd.read_csv(path, **AS_TEXT) if path.exists() else pd.DataFrame(columns=list(key))


def load(name: str) -> dict[str, pd.DataFrame]:
    """The published table of a chapter by title of the image set; the `attrs` of each are its provenance.

    Raises FileNotFoundError as `read`.
    """
    everything, runs = read(name)
    tables = {}
    for title, table in everything.groupby("image_set", sort=False):
        tables[title] = table.drop(columns="image_set").dropna(axis=1, how="all").reset_index(drop=True)
        tables[title].attrs = runs[title]
    return tables


def beside(title: str, table: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """The reader's run and the published ones, by title, for figures and claims that show all of them.

    `table` is kept as `name`. While a published run itself is being made, it stands alone.
    """
    keep(name, table)
    if os.environ.get("CONVERGENT_PUBLISHING") == "1":
        return {title: table}
    return {f"this run: {title}": table} | {f"published: {other}": run for other, run in load(name).items()}


def others(runs: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The published ones among the runs that `beside` gives, without "published: " in their titles.

    While a published run itself is being made: that run, so that the page is whole.
    """
    found = {title.removeprefix("published: "): table for title, table in runs.items() if title.startswith("published")}
    return found or runs


def publish(notebook: Path, folder: Path) -> list[str]:
    """Write every kept table of an executed notebook to `folder`, each as CSV with its provenance as JSON.

    A table holds the runs on several image sets (column `image_set`); that of this notebook's images is replaced.
    Returns the names. Raises ValueError for a notebook that kept none or was not run to its stamp.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    stamps = [output["metadata"]["provenance"] for output in outputs if "provenance" in output.get("metadata", {})]
    stamps = [stamp for stamp in stamps if "data" in stamp]  # a table without its images' name says nothing
    tables = {
        name.removeprefix("table_"): text
        for name, text in results.read_records(notebook).items()
        if name.startswith("table_")
    }
    if not tables or not stamps:
        raise ValueError(
            f"{notebook} holds {len(tables)} tables and {len(stamps)} stamps that name the images:"
            " run it to the end first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    title = stamps[-1]["data"].split(", SHA-256")[0]
    for name, text in tables.items():
        # As text, so that no number changes its digits on the way.
        table, about = pd.read_csv(io.StringIO(text), **AS_TEXT), {title: stamps[-1]}
        table.insert(0, "image_set", title)
        path = folder / f"{name}.csv"
        if path.exists():
            others = pd.read_csv(path, **AS_TEXT).query("image_set != @title")
            # By title, so that the first published run stays the first whichever was made last.
            table = pd.concat([others, table]).sort_values("image_set", kind="stable")
            about = {k: v for k, v in json.loads(path.with_suffix(".json").read_text()).items() if k != title} | about
            about = dict(sorted(about.items()))
        table.to_csv(path, index=False, lineterminator="\n")
        path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    return sorted(tables)


def main() -> None:
    """Run a notebook and publish its tables."""
    import papermill
    import yaml

    parser = argparse.ArgumentParser(prog="python -m convergent.published", description=main.__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    os.environ["CONVERGENT_PUBLISHING"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / options.notebook.name
        parameters = {name: yaml.safe_load(value) for name, value in options.parameters}
        papermill.execute_notebook(options.notebook, run, parameters)
        print(f"published {', '.join(publish(run, paths.data() / 'published'))}")


if __name__ == "__main__":
    main()
