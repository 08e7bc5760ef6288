"""The stimuli of Geirhos et al. (2019): cue conflicts, edges and filled silhouettes of sixteen kinds of things.

"ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and robustness." The archive
holds them at 64 pixels, in the folders of the authors' repository: below `style-transfer-preprocessed-512`,
`boat/boat1-bear1.png` is a boat with the texture of a bear; `boat/boat1.png` shows its edges below `edges`, its
silhouette below `filled-silhouettes`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import torch

from . import image_files, paths
from .inputs import one_of

ARCHIVE = "geirhos_shape_texture_64px.zip"
FOLDERS = {"cue_conflict": "style-transfer-preprocessed-512", "edge": "edges", "silhouette": "filled-silhouettes"}
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
NAMES = {"car": "automobile", "boat": "ship"}
"""Things that CIFAR-10 calls by another name. Airplane, bird, cat, dog and truck have one name in both.

Bear, bicycle, bottle, chair, clock, elephant, keyboard, knife and oven are no classes of CIFAR-10; deer, frog and horse
are no things of Geirhos et al.
"""
NO_CLASS = -1


def find() -> Path:
    """Where the archive lies: in `$CONVERGENT_DATA`, else in the cache.

    Raises
    ------
    FileNotFoundError when it is in neither, with what to do.
    """
    supplied = os.environ.get("CONVERGENT_DATA")
    places = ([Path(supplied).expanduser()] if supplied else []) + [paths.cache()]
    for place in places:
        if (place / ARCHIVE).is_file():
            return (place / ARCHIVE).resolve()
    raise FileNotFoundError(
        f"The stimuli of Geirhos et al. (2019) are not here. Looked for {ARCHIVE} in $CONVERGENT_DATA "
        f"({supplied or 'not set'}) and {paths.cache()}. It is a zip of the folders {', '.join(FOLDERS.values())} of "
        "github.com/rgeirhos/texture-vs-shape (stimuli), shrunk to 64 pixels. Put it there, or use dataset='cave', "
        "whose silhouettes, edges and cue conflicts are drawn."
    )


def load(kind: str, size: int = 32, classes: Sequence[str] = CIFAR10):
    """All stimuli of one kind, with labels where the data set has a class for them.

    Parameters
    ----------
    kind : "cue_conflict" (1,280 images), "edge" (160) or "silhouette" (160)
    size : height and width in pixels
    classes : names of the classes of the data set with which they are used

    Returns
    -------
    images.Split: images uint8 (n, 3, size, size); labels by the *shape*, `NO_CLASS` (-1) where `classes` has none for
    it; latents a DataFrame with columns shape, texture (None but for cue conflicts) and file. In 80 of the cue
    conflicts shape and texture are of one class: these conflict in nothing, and are kept, as the authors do.

    Raises
    ------
    ValueError for another kind, or a damaged archive. FileNotFoundError as `find`.
    """
    from .images import Split

    one_of(kind, "kind", FOLDERS)
    names, pixels = image_files.read_zip(find(), FOLDERS[kind], size)
    shapes = [PurePosixPath(name).parts[0] for name in names]
    latents = pd.DataFrame({"shape": shapes, "texture": [_texture(name) for name in names], "file": names})
    classes = list(classes)
    known = {shape: _label(shape, classes) for shape in set(shapes)}
    labels = torch.tensor([known[shape] for shape in shapes])
    return Split(torch.from_numpy(pixels), labels, latents)


def _label(shape: str, classes: list[str]) -> int:
    name = shape if shape in classes else NAMES.get(shape)
    return classes.index(name) if name in classes else NO_CLASS


def _texture(name: str) -> str | None:
    """The second word of `boat1-bear1.png`; None for `boat1.png`."""
    match = re.search(r"-([a-z]+)\d*$", PurePosixPath(name).stem)
    return match.group(1) if match else None
