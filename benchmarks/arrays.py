"""Activations to time comparisons on: two networks that saw the same stimuli and learned partly the same features.

Trained networks would be better, but those that can be shipped are too narrow. What matters to a solver is here: ReLU
layers whose means are not zero, unequal scales of units, decaying spectra, and units of the one network that have
partners in the other, closer ones in early layers.
"""

import argparse
import json
from pathlib import Path

import numpy as np

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 1024, 1024)
BLOCK = 500  # stimuli drawn at once, so that stimulus i is the same whatever comes after it
_LATENTS = 96


class Networks:
    """Two random ReLU networks with these layer widths, whose stimuli come in blocks.

    Parameters
    ----------
    widths : units of each layer of both; a pair (units of a, units of b) where they differ
    seed : of weights and stimuli
    """

    def __init__(self, widths=WIDTHS, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.seed = seed
        widths = [(w, w) if np.isscalar(w) else tuple(w) for w in widths]
        self.layers = ([], [])
        values, fans = [self._stimuli(0)] * 2, (_LATENTS, _LATENTS)
        for depth, sizes in enumerate(widths):
            common = rng.normal(size=(max(fans), max(sizes)))
            shared = 0.9 - 0.5 * depth / max(len(widths), 2)
            for side in (0, 1):
                own = rng.normal(size=(fans[side], sizes[side]))
                weights = shared * common[: fans[side], : sizes[side]] + np.sqrt(1 - shared**2) * own
                # As batch normalisation does, with the first block's moments: no unit is silent, none saturates.
                driven = values[side] @ weights
                weights, bias = (
                    weights / driven.std(0),
                    rng.uniform(-0.6, 0.6, sizes[side]) - driven.mean(0) / driven.std(0),
                )
                gains, order = rng.lognormal(0, 0.5, sizes[side]), rng.permutation(sizes[side])
                self.layers[side].append(tuple(z.astype(np.float32) for z in (weights, bias, gains)) + (order,))
                values[side] = np.maximum(values[side] @ weights + bias, 0)
            fans = sizes

    def _stimuli(self, i: int) -> np.ndarray:
        """Latents with heavy tails and a decaying spectrum (BLOCK, _LATENTS)."""
        spread = np.arange(1, _LATENTS + 1) ** -0.5
        return (np.random.default_rng([self.seed, i]).laplace(size=(BLOCK, _LATENTS)) * spread).astype(np.float32)

    def block(self, i: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Layer -> float32 activations (BLOCK, n_units) of both networks, stimuli `i * BLOCK` and after."""
        sides = []
        for layers in self.layers:
            values, named = self._stimuli(i), {}
            for depth, (weights, bias, gains, order) in enumerate(layers):
                values = np.maximum(values @ weights + bias, 0)
                named[f"layer{depth + 1:02d}"] = (values * gains)[:, order]  # partners do not stand at the same place
            sides.append(named)
        return tuple(sides)

    def activations(self, n_stimuli: int, dtype: str = "float32"):
        """Layer -> activations (n_stimuli, n_units) of both networks."""
        blocks = [self.block(i) for i in range(-(-n_stimuli // BLOCK))]
        return tuple(
            {
                name: np.concatenate([block[side][name] for block in blocks])[:n_stimuli].astype(dtype)
                for name in blocks[0][side]
            }
            for side in (0, 1)
        )


def save(path: Path, widths, n_stimuli: int, dtype: str = "float32", seed: int = 0) -> None:
    """Write both networks' activations to an npz, as `a/layer01`, `b/layer01` and so on."""
    sides = zip("ab", Networks(widths, seed).activations(n_stimuli, dtype), strict=True)
    np.savez(path, **{f"{side}/{name}": values for side, layers in sides for name, values in layers.items()})


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        every = {name: file[name] for name in file.files}
    return tuple({name[2:]: values for name, values in every.items() if name.startswith(f"{side}/")} for side in "ab")


if __name__ == "__main__":  # in a process of its own: what it takes up is gone when the timing starts
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("settings", type=json.loads, help="JSON of the other arguments of save()")
    options = parser.parse_args()
    save(options.path, **options.settings)
