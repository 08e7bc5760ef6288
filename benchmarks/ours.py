"""The comparisons with this library."""

import arrays
import numpy as np

from convergent import mappings, metrics, stream
from convergent.compare import compare


def grid(a, b, metrics, folds=5, nulls=0):
    """Every layer of a with every layer of b in one call; name -> (n_layers_a, n_layers_b)."""
    table = compare(a, b, metrics=metrics, folds=folds, nulls=nulls, progress=False)
    found = {}
    for (metric, direction), rows in table.groupby(["metric", "direction"], sort=False):
        values = rows.pivot(index="layer_a", columns="layer_b", values="value").loc[list(a), list(b)]
        found[metric if direction == "both" else f"{metric} {direction}"] = values.to_numpy(float)
    return found


def nested(a, b, alphas, folds=5):
    """Ridge with its alpha chosen inside the training folds, for each pair."""
    values = [[metrics.linear(X, Y, alpha="cv", alphas=alphas, folds=folds) for Y in b.values()] for X in a.values()]
    return {"linear a to b": np.array(values)}


def streamed(a, b, widths, n_stimuli):
    """Rotations between layers of equal depth from a stream of batches: no more than one is ever held."""
    networks, moments = arrays.Networks(widths), stream.Moments(n_stimuli)
    for i in range(-(-n_stimuli // arrays.BLOCK)):
        moments.update(*networks.block(i))
    return {
        "procrustes": np.array([mappings.procrustes(moments.pair(name, name)).value() for name in moments.a.slices])
    }


def held(a, b, widths, n_stimuli):
    """The same from activations that are all held."""
    a, b = arrays.Networks(widths).activations(n_stimuli)
    return {"procrustes": np.array([metrics.procrustes(a[name], b[name]) for name in a])}
