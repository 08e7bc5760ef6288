"""The cave: a small world of objects with known causes, seen by three kinds of observer.

A scene is an object of one of ten shapes, with the texture of one photograph, in front of another, tinted,
placed, turned, lit and exposed. Because these latents are known, so is what a network *should* have found.
Pictures, captions and voxels are three observations of one scene, after Plato's cave and after Huh et al.
(2024, "The Platonic Representation Hypothesis"). The photographs come inside the scikit-image and
scikit-learn packages: nothing is downloaded.

>>> images, latents = render(1000, seed=0)                   # the pictures, and what is in them
>>> swapped = draw(latents.assign(surface="brick"))          # the same scenes, every object of brick
>>> silhouettes = masks(latents)                             # where the objects are
>>> sentences = captions(latents)
>>> brain = voxels(latents, images, noise=1.0, n_repeats=4)  # and how well it can be predicted at best
"""

from convergent.cave_latents import CATEGORIES, CROPS, LATENTS, RANGES, SHAPES, SURFACES, TINTS, sample
from convergent.cave_observers import PLACES, SIZES, TEMPLATES, Voxels, captions, voxels
from convergent.cave_pictures import components, draw, masks, render

__all__ = [
    "CATEGORIES", "CROPS", "LATENTS", "PLACES", "RANGES", "SHAPES", "SIZES", "SURFACES", "TEMPLATES", "TINTS",
    "Voxels", "captions", "components", "draw", "masks", "render", "sample", "voxels",
]  # fmt: skip
