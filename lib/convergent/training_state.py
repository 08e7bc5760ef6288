"""What a training run leaves on the disk, so that it can go on after it was killed."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass
class Run:
    """What training left behind.

    Attributes
    ----------
    epochs : list of dict, one an epoch: epoch, step, loss, train_accuracy, test_accuracy, seconds (of training),
        test_seconds
    checkpoints : dict step -> state dict on the CPU (empty without `checkpoints=True`); step 0 is the initialisation
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    checkpoints: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def history(self) -> pd.DataFrame:
        """The epochs as a table."""
        return pd.DataFrame(self.epochs)

    @property
    def accuracy(self) -> float:
        """Share of test images classified correctly after the last epoch."""
        return self.epochs[-1]["test_accuracy"]


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's state on the CPU."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}


class State:
    """The state of a run after its last whole epoch, in one safetensors file, replaced atomically."""

    def __init__(self, folder: str | Path | None, identity: dict):
        self.path = None if folder is None else Path(folder) / "state.safetensors"
        self.identity = identity

    def save(self, network: nn.Module, optimiser: torch.optim.Optimizer, scaler, run: Run, step: int) -> None:
        """Write it, whole or not at all."""
        if self.path is None:
            return
        tensors = {f"network/{name}": value for name, value in snapshot(network).items()}
        for i, slots in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{i}/{k}": v.cpu().contiguous() for k, v in slots.items() if v is not None}
        for kept, state in run.checkpoints.items():
            tensors |= {f"checkpoint/{kept}/{name}": value for name, value in state.items()}
        metadata = {
            "step": str(step),
            "epochs": json.dumps(run.epochs),
            "identity": json.dumps(self.identity),
            "scaler": json.dumps(scaler.state_dict()),  # empty but for float16
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        save_file(tensors, unfinished, metadata)
        unfinished.replace(self.path)

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer, scaler) -> tuple[Run, int]:
        """Fill network, optimiser and scaler from the file and give (run so far, steps done); (Run(), 0) without one.

        Raises
        ------
        ValueError where the folder holds a run of another identity.
        """
        if self.path is None or not self.path.exists():
            return Run(), 0
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:  # the disk was full, or lost power
            warnings.warn(f"{self.path} is damaged ({error}): the run starts from its beginning", stacklevel=3)
            return Run(), 0
        if json.loads(metadata["identity"]) != json.loads(json.dumps(self.identity)):
            raise ValueError(
                f"{self.path.parent} holds a run with another recipe, seed or data set: use another folder"
            )
        parts: dict[str, dict] = {"network": {}, "optimiser": {}, "checkpoint": {}}
        for name, value in tensors.items():
            part, rest = name.split("/", 1)
            parts[part][rest] = value
        network.load_state_dict(parts["network"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimiser"].items():
            i, key = name.split("/")
            slots.setdefault(int(i), {})[key] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": slots})
        if scaler.is_enabled():
            scaler.load_state_dict(json.loads(metadata["scaler"]))
        kept: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["checkpoint"].items():
            step, key = name.split("/", 1)
            kept.setdefault(int(step), {})[key] = value
        return Run(json.loads(metadata["epochs"]), dict(sorted(kept.items()))), int(metadata["step"])
