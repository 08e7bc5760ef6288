"""Many runs of `convergent.causal`, each made once, whatever is killed in between."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from . import achieved, causal
from .causal import CONTROLS, Condition, Setting
from .oracles import Reference

_TOLD_BY_TRAINING = ("accuracy", "train_accuracy", "seconds", "task_share", "alignment_gradient")


class Manifest:
    """Rows of finished runs, by key, in one file of JSON lines that is replaced whole or not at all."""

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> dict[str, dict]:
        """Key -> row."""
        if not self.path.exists():
            return {}
        return {row["key"]: row for row in map(json.loads, self.path.read_text().splitlines())}

    def add(self, key: str, row: dict) -> None:
        """Write one more row; two processes may do so."""
        with FileLock(self.path.with_suffix(".lock")):
            rows = self.rows() | {key: {"key": key} | row}
            unfinished = self.path.with_suffix(".unfinished")
            unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
            os.replace(unfinished, self.path)


def conditions(
    pushes: Mapping[tuple[str, str], Iterable[float]],
    seeds: Iterable[int] = range(3),
    betas: Iterable[float] = (1.0,),
    controls: Iterable[str] = CONTROLS[1:],
    metric: str = "linear",
) -> list[Condition]:
    """All runs of a sweep: every alpha with every beta and seed, then controls of the strongest push either way.

    Parameters
    ----------
    pushes : (reference, layer) -> alphas
    controls : which of them, `controls_of` a reference
    metric : that is pushed
    """
    seeds, betas, controls, found = list(seeds), list(betas), list(controls), []
    # Seed by seed and alpha by alpha: what there is after an hour is a whole, if coarse, picture.
    for seed in seeds:
        for beta in betas:
            for (name, layer), alphas in pushes.items():
                found += [Condition(name, layer, float(alpha), beta, seed, metric=metric) for alpha in alphas]
    for seed in seeds:
        for (name, layer), alphas in pushes.items():
            ends = [alpha for alpha in {min(alphas), max(alphas)} if alpha != 0]
            for control in controls:
                found += [Condition(name, layer, float(a), betas[0], seed, control, metric) for a in sorted(ends)]
    return found


def controls_of(ref: Reference) -> tuple[str, ...]:
    """The controls that can be made of a reference.

    Where it brings stimuli of its own, the push and the task do not meet in one gradient, of which the task could have
    a share: there is no control of the step size.
    """
    return ("shuffled",) if getattr(ref, "images", None) is not None else CONTROLS[1:]


def sweep(runs: list[Condition], setting: Setting, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Make all runs that the manifest in `folder` does not have yet, and give the rows of all.

    A killed sweep goes on where it was. The task alone is trained once for all references and then looked at beside
    each. Networks are kept as `folder/KEY/network.safetensors`.

    Returns
    -------
    DataFrame with a row for each of `runs`: what `causal.train` tells of it

    Raises
    ------
    ValueError as `causal.train`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest, references, rows = Manifest(folder / "manifest.jsonl"), {}, []
    bar = tqdm(runs, unit="run", disable=not progress, mininterval=1)
    for condition in bar:
        bar.set_postfix_str(f"{condition.reference} {condition.layer} alpha={condition.alpha:g} {condition.control}")
        key = f"{condition.key(setting)}-{condition.reference}-{condition.layer}"
        done = manifest.rows()
        if key not in done:
            made = (condition.reference, condition.layer)
            if made not in references:
                references = {made: causal.reference(made[0], setting, made[1])}  # one at a time: they are large
            plain = replace(condition, control="none")
            pushed = done.get(f"{plain.key(setting)}-{plain.reference}-{plain.layer}")
            row = _made(condition, setting, references[made], folder, pushed)
            manifest.add(key, {"dataset": setting.dataset, "architecture": setting.architecture} | row)
        rows.append(manifest.rows()[key])
    return pd.DataFrame(rows)


def _made(condition: Condition, setting: Setting, ref: Reference, folder: Path, pushed: dict | None) -> dict:
    """Train, or look at the trained task alone beside one more reference."""
    # A control lies beside the run that it controls, whose ledger it reads.
    place = folder / replace(condition, control="none").key(setting)
    weights = place / f"{causal.name(condition)}.safetensors"
    if weights.exists():  # the task alone, made for another reference; or killed before the manifest knew
        network = causal.network(setting, condition.seed)
        network.load_state_dict(load_file(weights))
        known = json.loads(weights.with_suffix(".json").read_text())
        seen = achieved.look(network, condition.layer, ref, setting.data.test.images[: setting.n_looked_at])
        return asdict(condition) | known | seen
    network, row = causal.train(condition, setting, ref, place, pushed)
    known = {name: row[name] for name in _TOLD_BY_TRAINING if name in row}
    weights.with_suffix(".json").write_text(json.dumps(known))
    causal.save(network, weights)
    (place / causal.name(condition) / "state.safetensors").unlink()
    return row


def network_of(condition: Condition, setting: Setting, folder: Path) -> nn.Module:
    """The network of a finished run of a sweep.

    Raises FileNotFoundError for a run that was not made.
    """
    network = causal.network(setting, condition.seed)
    place = folder / replace(condition, control="none").key(setting)
    network.load_state_dict(load_file(place / f"{causal.name(condition)}.safetensors"))
    return network.eval()
