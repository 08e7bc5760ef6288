"""Result tables of runs that are too long for a reader, or on images that cannot be shipped.

A notebook keeps its tables with `keep`. `python -m convergent.published run.ipynb` writes the tables of an executed
notebook to `data/published/`, with where they came from; `load` reads them back, for figures that show both runs.
"""

import io
import json
import sys
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


def publish(notebook: Path, folder: Path) -> list[str]:
    """Write every kept table of an executed notebook to `folder`, each as CSV with its provenance as JSON.

    Returns the names. Raises ValueError for a notebook that kept none or was not run to its stamp.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    stamps = [output["metadata"]["provenance"] for output in outputs if "provenance" in output.get("metadata", {})]
    tables = {
        name.removeprefix("table_"): text
        for name, text in results.read_records(notebook).items()
        if name.startswith("table_")
    }
    if not tables or not stamps:
        raise ValueError(f"{notebook} holds {len(tables)} tables and {len(stamps)} stamps: run it to the end first")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        pd.read_csv(io.StringIO(text)).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        about = {"title": stamps[-1]["data"].split(", SHA-256")[0], "provenance": stamps[-1]}
        (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    return sorted(tables)


if __name__ == "__main__":
    for run in sys.argv[1:]:
        print(f"{run}: published {', '.join(publish(Path(run), paths.data() / 'published'))}")
