"""Finished pairs of a long comparison, in a CSV file that is whole at any moment."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd


class ComparisonFile:
    """Rows of a comparison as they are finished.

    Each row carries the hash of the settings and of what was compared, so that another comparison is not taken for
    the rest of this one.

    Raises
    ------
    ValueError for a file of another comparison, or one that is none.
    """

    def __init__(self, path, settings: dict, content: Callable):
        self.path = Path(path)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for part in content():
            digest.update(part)
        self.hash, self.rows = digest.hexdigest()[:16], []
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        try:
            # All as text: names of layers stay what they are, also "1" and "nan", and numbers to the last digit.
            table = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"{self.path} is no comparison ({error}): name another file") from error
        found = set(table["comparison"]) if "comparison" in table else {"none"}
        if found != {self.hash}:
            raise ValueError(
                f"{self.path} holds another comparison ({', '.join(sorted(found))}, not {self.hash}): other layers, "
                "stimuli or settings. Name another file, or delete this one"
            )
        for column in table.columns.difference(["metric", "layer_a", "layer_b", "direction", "comparison"]):
            kind = int if column.startswith("n_") else float
            table[column] = [kind(number or "nan") for number in table[column]]
        self.rows = table.drop(columns="comparison").to_dict("records")

    def write(self, rows: list[dict]) -> None:
        """Put all rows in place of those in the file, whole or not at all."""
        unfinished = self.path.with_name(self.path.name + ".unfinished")
        pd.DataFrame(rows).assign(comparison=self.hash).to_csv(unfinished, index=False)
        os.replace(unfinished, self.path)
