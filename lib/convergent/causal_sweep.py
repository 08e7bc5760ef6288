"""Many runs of `convergent.causal`, each made once, whatever is killed in between."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from . import achieved, causal, sweep_cluster, sweep_tasks
from .causal import CONTROLS, Condition, Setting
from .oracles import Reference
from .sweep_runs import SweepError

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


def sweep(
    runs: list[Condition],
    setting: Setting,
    folder: Path,
    progress: bool = True,
    options: sweep_cluster.Options | None = None,
) -> pd.DataFrame:
    """Make all runs that the manifest in `folder` does not have yet, and give the rows of all.

    A killed sweep goes on where it was. The task alone is trained once for all references and then looked at beside
    each. Networks are kept as `folder/KEY/network.safetensors`.

    Parameters
    ----------
    options : make them on the workers of a cluster, which all see `folder`; None makes them here, one after the other

    Returns
    -------
    DataFrame with a row for each of `runs`: what `causal.train` tells of it

    Raises
    ------
    ValueError as `causal.train`. With `options` SweepError for runs that failed, when all others have been made, and as
    `sweep_tasks.run`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder / "manifest.jsonl")
    keys = {condition: _key(condition, setting) for condition in runs}
    there = manifest.rows()
    missing = [condition for condition, key in keys.items() if key not in there]
    if missing and options:
        _make_on_workers(
            missing, setting, folder, manifest, options, partial(print, flush=True) if progress else _silent
        )
    elif missing:
        _make_here(missing, setting, folder, manifest, progress)
    there = manifest.rows()
    return pd.DataFrame([there[keys[condition]] for condition in runs])


def _silent(line: str) -> None:
    return


def _key(condition: Condition, setting: Setting) -> str:
    return f"{condition.key(setting)}-{condition.reference}-{condition.layer}"


def _keep(manifest: Manifest, condition: Condition, setting: Setting, row: dict) -> None:
    about = {"dataset": setting.dataset, "architecture": setting.architecture}
    manifest.add(_key(condition, setting), about | row)


def _pushed(condition: Condition, setting: Setting, rows: dict[str, dict]) -> dict | None:
    """The row of the run that a control controls."""
    return rows.get(_key(replace(condition, control="none"), setting))


def _make_here(missing: list[Condition], setting: Setting, folder: Path, manifest: Manifest, progress: bool) -> None:
    references: dict[tuple[str, str], Reference] = {}
    bar = tqdm(missing, unit="run", disable=not progress, mininterval=1)
    for condition in bar:
        bar.set_postfix_str(f"{condition.reference} {condition.layer} alpha={condition.alpha:g} {condition.control}")
        done, named = manifest.rows(), (condition.reference, condition.layer)
        if _key(condition, setting) in done:  # by another process, meanwhile
            continue
        if named not in references:
            references = {named: causal.reference(named[0], setting, named[1])}  # one at a time: they are large
        pushed = _pushed(condition, setting, done)
        _keep(manifest, condition, setting, _made(condition, setting, references[named], folder, pushed))


# --- on the workers of a cluster -----------------------------------------------------------------------


def waves(missing: list[Condition], setting: Setting) -> tuple[list[Condition], dict[Condition, Condition]]:
    """The runs that can be made at once, and each of the others with the one of them that it needs.

    A control needs the run that it controls. The task alone is trained once: for the other references it is looked at.
    """
    first: dict[str, Condition] = {}
    for condition in missing:
        if condition.control == "none":
            first.setdefault(condition.key(setting), condition)
    others = [condition for condition in missing if first.get(condition.key(setting)) != condition]
    return list(first.values()), {c: first.get(replace(c, control="none").key(setting)) for c in others}


def _make_on_workers(
    missing: list[Condition], setting: Setting, folder: Path, manifest: Manifest, options, say: Callable
) -> None:
    failures: dict[str, str] = {}
    plain = replace(setting)  # without its images, which workers load themselves

    def done(task: sweep_tasks.Task, row: dict) -> None:
        _keep(manifest, task.arguments[0], setting, row)

    def make(wave: Iterable[Condition]) -> None:
        rows = manifest.rows()
        given = [(c, plain, folder.resolve(), _pushed(c, setting, rows)) for c in wave]
        tasks = [sweep_tasks.Task(_title(one[0]), _made_anywhere, one) for one in given]
        failures.update(sweep_tasks.run(tasks, cluster, options, folder, say, done))

    say(f"{len(missing)} runs to do")
    with sweep_cluster.client(options, len(missing), say) as cluster:
        at_once, later = waves(missing, setting)
        make(at_once)
        lost = {c: needed for c, needed in later.items() if needed and _title(needed) in failures}
        failures |= {_title(c): f"needs {_title(needed)}, which failed" for c, needed in lost.items()}
        make(c for c in later if c not in lost)
    if failures:
        told = "".join(f"\n  {title}: {error}" for title, error in failures.items())
        raise SweepError(f"{len(failures)} of {len(missing)} runs failed; the same call tries them again:{told}")


def _title(c: Condition) -> str:
    words = [c.reference, c.layer, f"alpha={c.alpha:g}", f"beta={c.beta:g}", f"seed={c.seed}", c.metric]
    return ", ".join([*words, *([c.control] if c.control != "none" else [])])


def _made_anywhere(condition: Condition, setting: Setting, folder: Path, pushed: dict | None) -> dict:
    return _made(condition, setting, causal.reference(condition.reference, setting, condition.layer), folder, pushed)


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
