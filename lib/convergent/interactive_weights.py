"""The alignment problem as a figure that turns: two networks, the same images, other axes."""

import numpy as np
import torch

from .plots import GREY, PALETTE
from .weight_covariances import alignment
from .weight_similarity import bures_cosine

STEPS = 13


def problem(seed: int = 3, n_images: int = 60, n_neurons: int = 40):
    """Two planted networks whose second differs from the first by a rotation of the axes, a little noise, new neurons.

    Returns
    -------
    dict with images (n_images,) groups, first and second: inputs (n_images, 3) and neurons (n_neurons, 3), and turn
    (3, 3), the rotation that `weight_covariances.alignment` finds from the inputs
    """
    random = np.random.default_rng(seed)
    groups = np.arange(n_images) % 3
    centres = np.array([[2.4, 0.3, 0.0], [-1.2, 1.4, 0.4], [-1.0, -1.6, -0.4]])
    inputs = centres[groups] + random.normal(0, [0.5, 0.35, 0.2], (n_images, 3))
    angle, axis = 2.1, np.array([1.0, 2.0, 1.5]) / np.linalg.norm([1.0, 2.0, 1.5])
    turn = rotation(axis, angle)
    spread = np.array([1.5, 0.6, 0.25])
    first, second = (random.standard_normal((n_neurons, 3)) * spread for _ in range(2))
    others = inputs @ turn.T + random.normal(0, 0.12, inputs.shape)
    found = alignment(torch.from_numpy(others.T @ inputs)).numpy()
    return {"groups": groups, "first": (inputs, first), "second": (others, second @ turn.T), "turn": found}


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation by `angle` about the unit vector `axis` (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def partway(turn: np.ndarray, share: float) -> np.ndarray:
    """A share of the way from no rotation to `turn`, about its own axis."""
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return rotation(axis / np.linalg.norm(axis), share * angle)


def alignment_problem(seed: int = 3):
    """Left, what two networks' layers are given for the same images; right, the neurons that look at it. A slider turns
    the first network from its own axes into those of the second.

    Returns
    -------
    plotly Figure; its slider's labels say how alike the inputs and the covariances of neurons are at each step
    """
    import plotly.graph_objects as go

    made = problem(seed)
    colours = [PALETTE[group] for group in made["groups"]]
    states = [(share, *_turned(made, share)) for share in np.linspace(0, 1, STEPS)]

    def moving(inputs, neurons):
        return [
            _cloud(go, inputs, "scene", colours, "circle", 4),
            _cloud(go, neurons, "scene2", PALETTE[0], "circle", 3),
            _main_axis(go, neurons, PALETTE[0]),
        ]

    still = [
        _cloud(go, made["second"][0], "scene", colours, "diamond-open", 4),
        _cloud(go, made["second"][1], "scene2", PALETTE[4], "diamond-open", 3),
        _main_axis(go, made["second"][1], PALETTE[4]),
    ]
    names = [f"{share:.2f}" for share, *_ in states]
    frames = [
        go.Frame(name=name, data=moving(inputs, neurons), traces=[0, 1, 2], layout={"title": {"text": said}})
        for name, (_, inputs, neurons, said) in zip(names, states, strict=True)
    ]
    figure = go.Figure(moving(states[0][1], states[0][2]) + still, frames=frames)
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [
        {"label": f"{share:.0%}", "method": "animate", "args": [[name], now]}
        for name, (share, *_) in zip(names, states, strict=True)
    ]
    value = {"prefix": "turned towards the second network: ", "font": {"size": 14, "color": GREY}}
    axis = {"range": [-4, 4], "showbackground": False, "showticklabels": False, "title": ""}
    scene = {f"{name}axis": axis for name in "xyz"}
    scene |= {"aspectmode": "cube", "camera": {"eye": {"x": 1.5, "y": 1.2, "z": 0.8}}}
    return figure.update_layout(
        scene=scene | {"domain": {"x": [0, 0.49], "y": [0.05, 0.95]}},
        scene2=scene | {"domain": {"x": [0.51, 1], "y": [0.05, 0.95]}},
        title={"text": states[0][3], "font": {"size": 14}, "x": 0.5, "y": 0.97},
        sliders=[{"steps": steps, "active": 0, "currentvalue": value, "x": 0.05, "len": 0.9, "y": 0}],
        margin={"l": 0, "r": 0, "t": 50, "b": 10},
        height=520,
        showlegend=False,
    )


def _turned(made: dict, share: float):
    turn = partway(made["turn"], share)
    inputs, neurons = (part @ turn.T for part in made["first"])
    others, targets = made["second"]
    alike = (inputs * others).sum() / np.sqrt((inputs**2).sum() * (others**2).sum())
    covariances = [torch.from_numpy(rows.T @ rows / len(rows)) for rows in (neurons, targets)]
    cosine = bures_cosine(*covariances)
    return inputs, neurons, f"inputs: cosine {alike:.2f}     neurons: Bures cosine {cosine:.2f}"


def _cloud(go, at, scene, colour, symbol, size):
    x, y, z = np.round(at, 2).T.tolist()
    marker = {"size": size, "color": colour, "symbol": symbol}
    return go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, hoverinfo="skip", scene=scene)


def _main_axis(go, neurons, colour):
    """The leading eigenvector of the neurons' second moments, as a line of two standard deviations either way."""
    values, vectors = np.linalg.eigh(neurons.T @ neurons / len(neurons))
    end = 2 * np.sqrt(values[-1]) * vectors[:, -1]
    x, y, z = np.round(np.stack([-end, end]), 2).T.tolist()
    line = {"color": colour, "width": 6}
    return go.Scatter3d(x=x, y=y, z=z, mode="lines", line=line, hoverinfo="skip", scene="scene2")
