"""The tables of chapter 8's sweeps: what their networks tell besides, how they are published and read."""

import io
import json
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch

from . import causal, causal_sweep, networks, paths, published, results, weights
from .causal import Condition, Setting


def publish(table: pd.DataFrame, setting: Setting, kept: Path, folder: Path, repeat: str) -> Path:
    """Write a sweep's table to `folder/causal_sweep_ARCHITECTURE.csv`, beside those of other image sets.

    Rows of the same image set, reference and layer are replaced, others stay. Columns: image_set, then those of
    `completed`. Where an image set's rows came from goes to a JSON file of the same name: for each architecture and
    image set the run that wrote last. First-layer filters of the first seed go to `causal_filters_ARCHITECTURE.csv`.

    Parameters
    ----------
    kept : folder of the sweep, with its networks
    repeat : the command that makes the same again
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = completed(table, setting, kept)
    about = results.provenance("08_causal_perturbation", setting.data) | {"repeat": repeat}
    path = _write(table.drop(columns=["key", "dataset", "architecture"]), "sweep", setting, folder, about)
    if not (filters := first_filters(table, setting, kept)).empty:
        _write(filters, "filters", setting, folder, about)
    return path


def _write(table: pd.DataFrame, what: str, setting: Setting, folder: Path, about: dict) -> Path:
    title = setting.data.title
    path, known = folder / f"causal_{what}_{as_a_name(setting.architecture)}.csv", {}
    table = table.round(6)
    table.insert(0, "image_set", title)
    if path.exists():
        # As text, so that no number changes its digits on the way.
        table = pd.read_csv(io.StringIO(table.to_csv(index=False)), **published.AS_TEXT)
        others, own = pd.read_csv(path, **published.AS_TEXT), ["image_set", "reference", "layer"]
        made = pd.MultiIndex.from_frame(table[own].drop_duplicates())
        others = others[~pd.MultiIndex.from_frame(others[own]).isin(made)]
        table = pd.concat([others, table]).sort_values("image_set", kind="stable")
        known = json.loads(path.with_suffix(".json").read_text())
    table.to_csv(path, index=False, lineterminator="\n")
    path.with_suffix(".json").write_text(json.dumps(dict(sorted((known | {title: about}).items())), indent=1) + "\n")
    return path


def as_a_name(text: str) -> str:
    """A text as part of a file's name."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def completed(table: pd.DataFrame, setting: Setting, kept: Path) -> pd.DataFrame:
    """A sweep's table with what its networks and images tell besides.

    Returns
    -------
    the table with columns score (in words), chance, and orientation, the mean orientation selectivity of the filters of
    the network's first layer
    """
    oriented = [
        weights.orientation_selectivity(weights.first_filters(causal_sweep.network_of(run, setting, kept))).mean()
        for run in _runs(table)
    ]
    return table.assign(score=setting.score, chance=setting.chance, orientation=oriented)


def first_filters(table: pd.DataFrame, setting: Setting, kept: Path) -> pd.DataFrame:
    """Filters of the first layer of the first seed's networks, where it is pushed, without controls.

    Returns
    -------
    DataFrame with a row a filter: reference, layer, alpha, then its weights (channels, height, width) as w0, w1, ...
    """
    rows, first = [], networks.layers(causal.network(setting, 0))[0]
    shown = (table.seed == table.seed.min()) & (table.control == "none") & (table.layer == first)
    for run in _runs(table[shown]):
        found = weights.first_filters(causal_sweep.network_of(run, setting, kept))
        rows += [(run.reference, run.layer, run.alpha, *one) for one in found.flatten(1).tolist()]
    names = [f"w{i}" for i in range(len(rows[0]) - 3)] if rows else []
    return pd.DataFrame(rows, columns=["reference", "layer", "alpha", *names])


def sheets(filters: pd.DataFrame, reference: str = "gabor") -> dict[float, torch.Tensor]:
    """Of a table of `first_filters`: alpha -> (n_filters, 3, height, width), for one reference."""
    found = {}
    for alpha, rows in filters[filters.reference == reference].groupby("alpha"):
        flat = torch.tensor(rows.filter(regex=r"^w\d+$").to_numpy(), dtype=torch.float32)
        side = round((flat.shape[1] / 3) ** 0.5)
        found[alpha] = flat.view(-1, 3, side, side)
    return found


def _runs(table: pd.DataFrame) -> list[Condition]:
    kinds = {field.name: type(field.default) for field in fields(Condition)} | {"alpha": float}
    texts = ("reference", "layer", "control", "metric")
    return [
        Condition(**{n: getattr(row, n) if n in texts else kinds[n](getattr(row, n)) for n in kinds})
        for row in table.itertuples()
    ]


def published_runs(what: str = "sweep", architecture: str = "cnn6") -> dict[str, pd.DataFrame]:
    """Title of the image set -> published table ("sweep" or "filters"); none where none was published yet."""
    name = f"causal_{what}_{as_a_name(architecture)}"
    if not (paths.data() / "published" / f"{name}.csv").exists():
        return {}
    return published.load(name)
