"""Interactive figures that stay alive in the static page: every state is computed beforehand, by real calls."""

from collections.abc import Mapping

import numpy as np

from . import transformations
from .plots import COLOURS, GREY, PALETTE

STRENGTHS = tuple(round(0.1 * i, 1) for i in range(11))
# In three dimensions a cloud that is ten times as large no longer fits the picture.
REACH = {"isotropic scale": 0.3, "unit scales": 0.5, "linear map": 0.35, "dropped units": 0.7}
FAMILY = {name: PALETTE[0] if name in transformations.MAPS else PALETTE[1] for name in transformations.METRICS}


def transformed(cloud: np.ndarray, strengths=STRENGTHS, seed: int = 0) -> dict[str, dict[float, tuple]]:
    """The states of `knobs`: a cloud under each transformation and strength, and what the metrics say of it.

    Parameters
    ----------
    cloud : (n_stimuli, 3)
    strengths : from 0 to 1, shares of the most that is shown of a transformation

    Returns
    -------
    dict transformation -> strength -> (points (n_stimuli, 3), scores); a dropped unit is drawn at its mean
    """
    states = {}
    for name in transformations.TRANSFORMATIONS:
        states[name] = {}
        for strength in strengths:
            points = transformations.transform(cloud, name, strength * REACH.get(name, 1), seed)
            values = transformations.scores(cloud, points)
            if points.shape[1] < 3:
                left = [int(np.flatnonzero((cloud == unit[:, None]).all(0))[0]) for unit in points.T]
                points = np.where(np.isin(np.arange(3), left), cloud, cloud.mean(0))
            states[name][strength] = points, values
    return states


def knobs(cloud: np.ndarray, groups: np.ndarray, states: Mapping, chance: Mapping[str, float], first: str = "rotation"):
    """A cloud in three dimensions, a menu of transformations, a slider for their strength, and a bar for each metric.

    Parameters
    ----------
    cloud : (n_stimuli, 3), drawn small and grey behind the transformed one
    groups : (n_stimuli,) small whole numbers, for colours
    states : as `transformed` gives them
    chance : metric -> its score for shuffled stimuli, drawn as a tick
    first : the transformation that is shown before anything is chosen

    Returns
    -------
    plotly Figure
    """
    import plotly.graph_objects as go

    metrics = list(chance)[::-1]  # plotly draws bars from below
    paint = [PALETTE[group % len(PALETTE)] for group in groups]
    names = {(name, s): f"{name} {s:g}" for name, path in states.items() for s in path}
    frames = [
        go.Frame(name=names[name, s], data=[_points(go, at), _bars(go, metrics, values)], traces=[1, 2])
        for name, path in states.items()
        for s, (at, values) in path.items()
    ]
    last = max(states[first])
    moved, bars = _points(go, states[first][last][0]), _bars(go, metrics, states[first][last][1])
    moved.update(marker={"size": 4, "color": paint, "line": {"width": 0.5, "color": GREY}})
    bars.update(marker={"color": [FAMILY[m] for m in metrics]})
    ghost = _points(go, cloud).update(marker={"size": 2, "color": GREY})
    tick = {"symbol": "line-ns-open", "size": 14, "color": COLOURS["chance"], "line": {"width": 2}}
    ticks = go.Scatter(x=[chance[m] for m in metrics], y=metrics, mode="markers", marker=tick, hoverinfo="skip")
    figure = go.Figure([ghost, moved, bars, ticks], frames=frames)
    everywhere = np.concatenate([at for path in states.values() for at, _ in path.values()])
    reach = [float(everywhere.min()), float(everywhere.max())]
    return figure.update_layout(
        **_axes(reach),
        sliders=[_slider(path, name, names, name == first) for name, path in states.items()],
        updatemenus=[_menu(states, metrics, last, first)],
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=760,
        showlegend=False,
    )


def _points(go, at):
    x, y, z = np.round(at, 2).astype(np.float32).T
    return go.Scatter3d(x=x, y=y, z=z, mode="markers", hoverinfo="skip")


def _bars(go, metrics, values):
    lengths = [round(values[m], 3) for m in metrics]
    text = [f"{values[m]:.2f}" for m in metrics]
    shown = {"text": text, "textposition": "outside", "cliponaxis": False, "hoverinfo": "skip", "width": 0.6}
    return go.Bar(x=lengths, y=metrics, orientation="h", **shown)


def _axes(reach) -> dict:
    axis = {"range": reach, "showbackground": False, "zeroline": True, "nticks": 4}
    scene = {f"{name}axis": axis | {"title": f"unit {i}"} for i, name in enumerate("xyz", start=1)}
    scene |= {"camera": {"eye": {"x": 1.45, "y": 1.45, "z": 0.7}}, "aspectmode": "cube"}
    scene["domain"] = {"x": [0, 1], "y": [0.34, 0.85]}
    below = {"domain": [0.03, 0.31], "fixedrange": True, "showgrid": False}
    across = {"range": [-0.15, 1.15], "tickvals": [0, 0.5, 1], "fixedrange": True, "domain": [0.3, 0.97]}
    return {"scene": scene, "xaxis": across, "yaxis": below}


def _slider(path, name, names, visible) -> dict:
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    label = "{:.0%}".format
    steps = [{"label": label(s), "method": "animate", "args": [[names[name, s]], now]} for s in path]
    value = {"prefix": "strength: ", "font": {"size": 14, "color": GREY}, "offset": 4}
    place = {"x": 0.05, "len": 0.9, "y": 0.995, "yanchor": "top", "pad": {"t": 76, "b": 0}}
    return {"steps": steps, "active": len(steps) - 1, "visible": visible, "currentvalue": value, "ticklen": 4} | place


def _menu(states, metrics, last, first) -> dict:
    """Choosing a transformation shows it at its strongest, and its own slider."""
    buttons = []
    for name, path in states.items():
        at, values = path[last]
        x, y, z = np.round(at, 2).T.tolist()
        lengths, text = [round(values[m], 3) for m in metrics], [f"{values[m]:.2f}" for m in metrics]
        data = {"x": [x, lengths], "y": [y, metrics], "z": [z, None], "text": [None, text]}
        layout = {f"sliders[{i}].visible": other == name for i, other in enumerate(states)}
        layout |= {f"sliders[{list(states).index(name)}].active": len(path) - 1}
        buttons.append({"label": name, "method": "update", "args": [data, layout, [1, 2]]})
    place = {"x": 0.05, "xanchor": "left", "y": 0.995, "yanchor": "top", "pad": {"t": 32}}
    look = {"type": "dropdown", "bordercolor": GREY, "showactive": True, "active": list(states).index(first)}
    return {"buttons": buttons} | look | place
