"""Result tables of runs that are too long for a reader, or on images that cannot be shipped.

A notebook keeps its tables with `keep`. `python -m convergent.published notebook.ipynb -p dataset cifar10` runs it and
writes its tables to `data/published/`, with where they came from; `beside` puts them next to the reader's own.
"""

import argparse
import io
import json
import os
import tempfile
from pathlib import Path

import pandas as pd

from . import paths, results


def keep(name: str, table: pd.DataFrame) -> None:
    """Store a tidy table in the executed notebook, without showing it."""
    results.record(f"table_{name}", table.to_csv(index=False, float_format="%.6g"), show=False)


def load(name: str) -> pd.DataFrame:
    """The published table `name`; its `attrs` say title (of the image set) and provenance.

    Raises FileNotFoundError for a table that was not published, with the names of those that were.
    """
    folder = paths.data() / "published"
    path = folder / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"no published table {name!r}; there are: {', '.join(sorted(p.stem for p in folder.glob('*.csv')))}"
        )
    table = pd.read_csv(path)
    table.attrs = json.loads((folder / f"{name}.json").read_text())
    return table


def beside(title: str, table: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """The reader's run and the published one, by title, for figures and claims that show both.

    `table` is kept as `name`. While the published run itself is being made, it stands alone.
    """
    keep(name, table)
    if os.environ.get("CONVERGENT_PUBLISHING") == "1":
        return {title: table}
    other = load(name)
    return {f"this run: {title}": table, f"published: {other.attrs['title']}": other}


def publish(notebook: Path, folder: Path) -> list[str]:
    """Write every kept table of an executed notebook to `folder`, each as CSV with its provenance as JSON.

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
    for name, text in tables.items():
        pd.read_csv(io.StringIO(text)).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        about = {"title": stamps[-1]["data"].split(", SHA-256")[0], "provenance": stamps[-1]}
        (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
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
