"""Measured responses as references: a brain's voxels to the images that a network is trained on.

A file of responses is an npz without pickle (`Responses.load`). The Natural Scenes Dataset (Allen et al. 2022) becomes
one in these steps, on a machine that has it (registration at naturalscenesdataset.org, then its bucket):

1. Betas: `nsddata_betas/ppdata/subj0S/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_sessionNN.hdf5`, array `betas`
   (750 trials, z, y, x) of int16; divide by 300 for per cent signal change.
2. Voxels: `nsddata/ppdata/subj0S/func1pt8mm/roi/prf-visualrois.nii.gz` numbers V1v 1, V1d 2, ..., hV4 7;
   `streams.nii.gz` numbers ventral 5. Keep voxels above 0 and give each its name: the array `roi`.
3. Trials: row 10000 trials long, `nsddata/experiments/nsd/nsd_expdesign.mat` holds `masterordering` (which of a
   subject's 10,000 images each trial showed) and `subjectim` (which of the 73,000 images those are). The image's number
   of each trial is the array `stimulus`; standardise voxels within a session before sessions are put together.
4. Images: `nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5`, array `imgBrick` (73000, 425, 425, 3); cut to the network's
   size, in the order of the numbers in `stimulus`: the array `images` (n, 3, h, w) of uint8.
5. `numpy.savez("subj01.npz", images=images, trials=betas, stimulus=stimulus, roi=names)`; then
   `Responses.load("subj01.npz", roi=["V1v", "V1d"])`. Repeated presentations are averaged here, and the noise ceiling
   is estimated from them.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .oracles import Reference


class Responses(Reference):
    """Responses of units without places (voxels, electrodes) to images that are known by their position.

    Parameters
    ----------
    voxels : (n_stimuli, n_voxels)
    noise_ceiling : (n_voxels,) correlation of a perfect model with the responses, in [0, 1]; None where unknown
    images : uint8 (n_stimuli, 3, h, w), the stimuli, where they are not the images that the network learns from
    test : `Responses` of the same voxels to the test images

    Raises
    ------
    ValueError for counts that do not match, values that are missing or not finite, and constant voxels, with the number
    of the first one.
    """

    places, by_index = False, True

    def __init__(self, voxels, noise_ceiling=None, images: Tensor | None = None, test: "Responses | None" = None):
        voxels = np.asarray(voxels)
        if voxels.ndim != 2 or voxels.dtype.kind not in "fiu" or len(voxels) < 4:
            raise ValueError(
                f"voxels are {voxels.dtype} {voxels.shape}: expected numbers (n_stimuli, n_voxels), n >= 4"
            )
        voxels = voxels.astype(np.float32)
        _finite(voxels)
        if (silent := np.flatnonzero(np.ptp(voxels, axis=0) == 0)).size:
            raise ValueError(
                f"{silent.size} of {voxels.shape[1]} voxels answer all stimuli alike, the first is number {silent[0]}:"
                " leave them out, they can neither predict nor be predicted"
            )
        if images is not None and (images.ndim != 4 or images.dtype != torch.uint8 or len(images) != len(voxels)):
            raise ValueError(
                f"{len(voxels)} rows of voxels need uint8 images ({len(voxels)}, 3, height, width), not {images.dtype}"
                f" {tuple(images.shape)}: row i of both must be the same stimulus"
            )
        if test is not None and test.n_units != voxels.shape[1]:
            raise ValueError(f"{voxels.shape[1]} voxels answer training images and {test.n_units} answer test images")
        self.noise_ceiling = None if noise_ceiling is None else _ceilings(noise_ceiling, voxels.shape[1])
        self.voxels, self.images, self._test = torch.from_numpy(voxels), images, test
        self.n_units = voxels.shape[1]

    def __len__(self):
        return len(self.voxels)

    def __call__(self, images: Tensor, which: Tensor | None = None, shape: tuple[int, int] | None = None) -> Tensor:
        if which is None or len(which) != len(images):
            raise ValueError("responses belong to images by position: give `which`, one position for each image")
        return self.voxels[which.cpu()].to(images.device)

    @property
    def on_test(self) -> Reference:
        if self._test is None:
            raise ValueError("no responses to the test images: give `test`, or responses that bring their own images")
        return self._test

    @classmethod
    def load(cls, path: str | Path, roi: list[str] | str | None = None) -> "Responses":
        """Responses from an npz file without pickle.

        Its arrays: `voxels` (n_stimuli, n_voxels), or `trials` (n_trials, n_voxels) and `stimulus` (n_trials,) of whole
        numbers, which are averaged in the order of these numbers; if it has them `images` (n_stimuli, 3, h, w) of
        uint8, `roi` (n_voxels,) of text, `noise_ceiling` (n_voxels,). Without `images` the stimuli are the training
        images, and `test_voxels` (n_test, n_voxels) the responses to the test images.

        Parameters
        ----------
        roi : keep the voxels of these regions only

        Raises
        ------
        FileNotFoundError where there is no such file.
        ValueError for a file that is no such npz, no such region (with those that there are), and as the class.
        """
        arrays = _read(Path(path))
        voxels, ceiling = _responses(arrays, path)
        kept = slice(None)
        if roi is not None:
            kept = _region(arrays, [roi] if isinstance(roi, str) else list(roi), voxels.shape[1], path)
        images, test = arrays.get("images"), arrays.get("test_voxels")
        try:
            return cls(
                voxels[:, kept],
                None if ceiling is None else np.asarray(ceiling)[kept],
                None if images is None else torch.from_numpy(images),
                None if test is None else cls(test[:, kept]),
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


class Dissimilarities(Reference):
    """A matrix of measured dissimilarities between stimuli, for the metric "rsa" only.

    Parameters
    ----------
    matrix : (n_stimuli, n_stimuli), symmetric
    images : uint8 (n_stimuli, 3, h, w), the stimuli

    Raises
    ------
    ValueError for a matrix that is not square, symmetric and finite, or does not fit the images.
    """

    places, by_index = False, True

    def __init__(self, matrix, images: Tensor):
        matrix = np.asarray(matrix, np.float32)
        if matrix.shape != (len(images),) * 2:
            raise ValueError(
                f"{len(images)} images need dissimilarities ({len(images)}, {len(images)}), not {matrix.shape}"
            )
        _finite(matrix)
        if not np.allclose(matrix, matrix.T, atol=1e-5):
            raise ValueError("dissimilarities must be symmetric: that of i to j is that of j to i")
        self.matrix, self.images, self.n_units = torch.from_numpy(matrix), images, len(matrix)

    def __call__(self, images: Tensor, which: Tensor | None = None, shape: tuple[int, int] | None = None) -> Tensor:
        if which is None or len(which) != len(images):
            raise ValueError("dissimilarities belong to images by position: give `which`, one position for each image")
        return self.matrix[which.cpu()][:, which.cpu()].to(images.device)


def kriegeskorte92(path: str | Path, size: int = 32, species: str = "human") -> Dissimilarities:
    """Inferior temporal cortex's dissimilarities between 92 photographs of objects (Kriegeskorte et al. 2008).

    Four fifths of 92 are few: a network that is pushed hard learns the dissimilarities of those that it is shown by
    heart, and little of it carries over to the others. Judge by the validated alignment, not by that of the batches.

    Parameters
    ----------
    path : of an npz with `images` (92, h, w, 3), `rdm_humanIT` and `rdm_monkeyIT` (92, 92)
    size : the photographs are shrunk to so many pixels, by averaging
    species : "human" or "monkey"

    Raises
    ------
    FileNotFoundError, ValueError as `Responses.load`.
    """
    arrays = _read(Path(path))
    names = {"human": "rdm_humanIT", "monkey": "rdm_monkeyIT"}
    if species not in names or not {"images", names[species]} <= arrays.keys():
        raise ValueError(f"{path} has {', '.join(arrays)}; needed: images and one of {', '.join(names.values())}")
    photographs = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.adaptive_avg_pool2d(photographs, size).round().to(torch.uint8)
    return Dissimilarities(arrays[names[species]], small)


def average_presentations(trials, stimulus) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean response to each stimulus, and the noise ceiling of the means.

    Parameters
    ----------
    trials : (n_trials, n_voxels)
    stimulus : (n_trials,) whole number of what each trial showed

    Returns
    -------
    voxels : (n_stimuli, n_voxels), in the order of the numbers
    noise_ceiling : (n_voxels,) in [0, 1], or None where no stimulus was shown twice: the root of the share of variance
        that is signal in the mean over the average number of presentations (Allen et al. 2022, methods)

    Raises
    ------
    ValueError for another number of trials than numbers, or values that are not finite.
    """
    trials, stimulus = np.asarray(trials, np.float64), np.asarray(stimulus)
    if len(trials) != len(stimulus) or stimulus.dtype.kind not in "iu":
        raise ValueError(
            f"{len(trials)} trials need as many whole numbers of stimuli, not {stimulus.dtype} {stimulus.shape}"
        )
    _finite(trials)
    _, index, counts = np.unique(stimulus, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), trials.shape[1]))
    np.add.at(sums, index, trials)
    means = sums / counts[:, None]
    spare = len(trials) - len(counts)
    if spare == 0:
        return means, None
    noise = ((trials - means[index]) ** 2).sum(0) / spare  # variance of one presentation
    each = (noise / counts[:, None]).mean(0)  # variance of noise in the means
    total = means.var(axis=0, ddof=1)
    signal = np.clip(total - each, 0, None)
    return means, np.sqrt(np.divide(signal, total, out=np.zeros_like(total), where=total > 0))


def _responses(arrays: dict, path) -> tuple[np.ndarray, np.ndarray | None]:
    if "voxels" in arrays:
        return arrays["voxels"], arrays.get("noise_ceiling")
    if {"trials", "stimulus"} <= arrays.keys():
        voxels, ceiling = average_presentations(arrays["trials"], arrays["stimulus"])
        return voxels, arrays.get("noise_ceiling", ceiling)
    raise ValueError(f"{path} has {', '.join(arrays) or 'no arrays'}; needed: voxels, or trials and stimulus")


def _region(arrays: dict, wanted: list[str], n_voxels: int, path) -> np.ndarray:
    if "roi" not in arrays or arrays["roi"].shape != (n_voxels,):
        found = f"of shape {arrays['roi'].shape}" if "roi" in arrays else "missing"
        raise ValueError(
            f"{path}: to choose regions it needs `roi`, one name for each of {n_voxels} voxels; it is {found}"
        )
    names = arrays["roi"].astype(str)
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{path} has no region {missing[0]!r}; it has {', '.join(sorted(set(names)))}")
    return np.isin(names, wanted)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not here: give the path of an npz file of responses")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an npz file of plain arrays ({error}): write it with numpy.savez") from error


def _finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{(~np.isfinite(values)).sum()} values are missing or not finite, the first in row {row}, column {column}:"
            " leave those stimuli or voxels out"
        )


def _ceilings(values, n_voxels: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.shape != (n_voxels,) or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"noise_ceiling must be {n_voxels} correlations in [0, 1], one for each voxel, not {values.shape}"
        )
    return values
