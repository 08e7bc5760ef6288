"""Numbers that the page, the claims and the tests all read, and what a chapter says about itself.

A notebook checks its parameters (`check_parameters`), stores each number it speaks of (`record`),
asks the reader (`quiz`), shows what turns (`interactive`) and ends with where it all came from (`stamp`).
"""

import ast
import difflib
import hashlib
import html
import json
import math
import os
import platform
import random
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from pathlib import Path

from IPython import get_ipython
from IPython.display import display

from . import __version__, paths

TIERS = ("smoke", "laptop", "full")

_RECORD = "application/papermill.record/"  # MyST-NB's `glue` reads outputs whose types carry this prefix
_RENAMED = {"models": "networks", "architecture": "networks"}  # what a parameter was called, where it is no more
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
_run = {"started": time.time(), "parameters": {}}  # of the notebook in this process


# --- numbers ---------------------------------------------------------------------------------------


def record(name: str, value, text: str | None = None, show: bool = True) -> None:
    """Show a number and store it, to the last digit, in the executed notebook.

    Prose in the same notebook then reads it with ``{glue:text}`name:.2f` ``; `read_records` reads it back.

    Parameters
    ----------
    name : str
        Letters, digits and underscores; once a notebook.
    value : int, float, bool, str, NumPy scalar, or array or tensor of one element
    text : str, optional
        What the shown line says in place of the name ("correlation of unit 17 across networks").
    show : bool
        False stores the number silently, for cells whose output is a figure.

    Raises
    ------
    ValueError
        For a name that prose could not refer to, or a value that is not finite.
    TypeError
        For a value that is not one number or one string.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"record {name!r}: a name is letters, digits and underscores, starting with a letter.")
    value = _plain(name, value)
    metadata = {"scrapbook": {"name": name, "mime_prefix": _RECORD}}
    display({_RECORD + "text/plain": repr(value)}, raw=True, metadata=metadata)
    if show:
        print(f"{text or name} = {value:.4g}" if isinstance(value, float) else f"{text or name} = {value}")


def _plain(name, value):
    """The Python int, float, bool or str that `value` holds: only these come back from a notebook exactly."""
    if getattr(value, "ndim", None) is not None and math.prod(value.shape) == 1:
        value = value.item()  # NumPy scalars and arrays and torch tensors of one element
    if not isinstance(value, int | float | str):
        raise TypeError(f"record {name!r}: one number or one string, not {type(value).__name__} {value!r:.80}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"record {name!r} is {value}: only finite numbers are recorded.")
    return value


def read_records(notebook) -> dict:
    """Every recorded number of an executed notebook (a path, or the notebook itself), by name, exactly."""
    if not isinstance(notebook, Mapping):
        notebook = json.loads(Path(notebook).read_text(encoding="utf-8"))
    records = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            about = output.get("metadata", {}).get("scrapbook")
            if about:
                stored = output["data"][about["mime_prefix"] + "text/plain"]
                records[about["name"]] = ast.literal_eval("".join(stored))
    return records


def read_stamp(notebook: Mapping) -> dict[str, str]:
    """What `stamp` told at the end of an executed notebook; empty where it was not reached."""
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    return next((o["metadata"]["provenance"] for o in outputs if "provenance" in o.get("metadata", {})), {})


# --- parameters ------------------------------------------------------------------------------------


def check_parameters(**allowed) -> None:
    """Refuse, before any work is done, what this notebook cannot run with.

    Called in the cell after the one tagged `parameters`, whose annotated assignments declare names and types
    (int, float, str, bool, and `X | None`; an int will do for a float).

    Parameters
    ----------
    **allowed : container or callable
        For some parameters, what they may be: `tier=TIERS`, `seeds=range(2, 65)`, or a function of the value
        that returns False, or raises, for what it refuses.

    Raises
    ------
    ValueError
        For a parameter passed to papermill that the notebook does not have, or a value that is not allowed.
    TypeError
        For a value of another type than declared.
    """
    shell = get_ipython()
    if shell is None:
        raise RuntimeError("check_parameters reads the cells of a notebook: call it from one.")
    types, injected = _declared(shell.user_ns["In"])
    for name in (*injected, *allowed):
        if name not in types:
            now = _RENAMED.get(name)
            hint = f" It is called {now!r} now." if now in types else nearest(name, types)
            raise ValueError(f"unknown parameter {name!r}.{hint} Parameters: {', '.join(types)}.")
    values = {name: shell.user_ns[name] for name in types}
    for name, value in values.items():
        values[name] = shell.user_ns[name] = as_declared(name, value, types[name])
    for name, choices in allowed.items():
        _check_value(name, values[name], choices)
    _run.update(started=time.time(), parameters=values)
    print(", ".join(f"{name}={value}" for name, value in values.items()))


def _declared(history) -> tuple[dict, list]:
    """Annotations of the parameters cell by name, and the names that papermill assigned after it.

    A live session may have run the cell several times, edited in between: the last version counts. What else
    the reader assigned is no parameter; only papermill's own cell, headed "# Parameters", passes values.
    """
    types, injected = {}, []
    for source in history:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # a cell the reader mistyped: it never ran
            continue
        if body and all(isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) for line in body):
            cell = {line.target.id: ast.unparse(line.annotation) for line in body}
            if not types or types.keys() & cell.keys():
                types, injected = cell, []
        elif types and source.lstrip().startswith("# Parameters"):
            targets = [line.targets[0] for line in body if isinstance(line, ast.Assign)]
            injected = [target.id for target in targets if isinstance(target, ast.Name)]
    if not types:
        raise ValueError("no parameters yet: run the cell of annotated assignments (`tier: str = ...`) first.")
    return types, injected


def as_declared(name, value, annotation):
    """The value, of the type that a parameter is declared with ("int", "str | None").

    Only a number for a text is changed, into a text: `-p layers 6` arrives as a number. Raises TypeError otherwise.
    """
    if "str" in (part.strip() for part in annotation.split("|")) and type(value) in (int, float):
        return str(value)
    for kind in (part.strip() for part in annotation.split("|")):
        if kind != "None" and kind not in _TYPES:
            raise TypeError(f"parameter {name!r} is declared {annotation}: use int, float, str, bool, or X | None.")
        if type(value) in {"None": (type(None),), "float": (float, int)}.get(kind, (_TYPES.get(kind),)):
            return value
    raise TypeError(f"parameter {name!r} is declared {annotation} but is {value!r}, of type {type(value).__name__}.")


def _check_value(name, value, choices) -> None:
    if isinstance(choices, Container):
        if value in choices:
            return
        if isinstance(choices, range):
            raise ValueError(f"parameter {name} = {value!r}: must lie between {choices[0]} and {choices[-1]}.")
        listed = ", ".join(map(str, choices))
        raise ValueError(f"parameter {name} = {value!r}: must be one of {listed}.{nearest(value, choices)}")
    if not isinstance(choices, Callable):
        raise TypeError(f"allowed values of {name!r}: a container or a function, not {choices!r}.")
    if choices(value) is False:
        raise ValueError(f"parameter {name} = {value!r} is not allowed here.")


def nearest(name, names) -> str:
    """A sentence that names the nearest of `names`, to end an error with; empty where none is near."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


# --- provenance ------------------------------------------------------------------------------------


def provenance(chapter: str, dataset=None, seed: int | None = None) -> dict[str, str]:
    """Where this run came from: code, data, seed, machine, time, and the command that repeats it.

    Parameters
    ----------
    chapter : str
        The notebook's name without folder and ending ("01_representations").
    dataset : convergent.images.Dataset, optional
        Named with its content's hash.
    seed : int, optional
    """
    import torch

    told = {"code": _commit()}
    if dataset is not None:
        told["data"] = f"{dataset.title}, SHA-256 {dataset.hash[:12]}"
    if seed is not None:
        told["seed"] = str(seed)
    told["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    told["software"] = f"Python {platform.python_version()}, torch {torch.__version__}"
    told["duration"] = _duration(time.time() - _run["started"])
    peak = _peak_memory()
    if peak:
        told["memory"] = f"{peak / 2**30:.1f} GiB"
    told["date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    options = " ".join(f"-p {name} {shlex.quote(str(value))}" for name, value in _run["parameters"].items())
    told["repeat"] = f"papermill notebooks/{chapter}.ipynb {chapter}-again.ipynb {options}".rstrip()
    return told


def stamp(chapter: str, dataset=None, seed: int | None = None) -> None:
    """Show `provenance` at the end of a chapter, and keep it in the output's metadata as `provenance`."""
    told = provenance(chapter, dataset, seed)
    shown = {k: html.escape(v) for k, v in told.items()} | {"repeat": f"<code>{html.escape(told['repeat'])}</code>"}
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in shown.items())
    plain = "\n".join(f"{name:>9}: {value}" for name, value in told.items())
    bundle = {"text/html": f'<dl class="stamp">{rows}</dl>', "text/plain": plain}
    display(bundle, raw=True, metadata={"provenance": told})


def _commit() -> str:
    checkout = paths.data().parent
    if not (checkout / ".git").exists():
        return f"convergent {__version__}"
    commit = _git(checkout, "rev-parse", "--short=10", "HEAD")
    if commit is None:  # no git on this machine, or no commit yet
        return f"convergent {__version__}"
    changes = " + changes" if _git(checkout, "status", "--porcelain", "--untracked-files=no") else ""
    return f"convergent {__version__}, commit {commit}{changes}"


def _git(folder, *command) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    import torch

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    return f"{model}, {torch.get_num_threads()} threads"


def _peak_memory() -> int | None:
    """Most bytes of memory this process has held; None where the system does not say (Windows)."""
    if platform.system() == "Windows":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


# --- what the reader does --------------------------------------------------------------------------


def quiz(question: str, right: tuple[str, str], wrong: list[tuple[str, str]]) -> None:
    """Ask a question; each answer opens its feedback. Needs no script and no network, only a click or a key.

    Parameters
    ----------
    question : str
        As all texts here, may hold `code`, *emphasis* and $mathematics$.
    right : (answer, feedback)
    wrong : list of (answer, feedback)
        Feedback on a wrong answer says what is wrong with it.
    """
    seed = hashlib.sha256(question.encode()).hexdigest()[:8]
    answers = [(*right, True), *((*answer, False) for answer in wrong)]
    random.Random(seed).shuffle(answers)  # in another order for each question, the same at every run
    choices = "".join(
        f'<details class="{"right" if is_right else "wrong"}" name="quiz-{seed}"><summary>{_inline(answer)}</summary>'
        f"<p><strong>{'Right.' if is_right else 'Not quite.'}</strong> {_inline(feedback)}</p></details>"
        for answer, feedback, is_right in answers
    )
    page = f'<div class="quiz tex2jax_process mathjax_process"><p>{_inline(question)}</p>{choices}</div>'
    plain = "\n".join([question, *(f"( ) {answer}" for answer, _, _ in answers)])
    display({"text/html": page, "text/plain": plain}, raw=True)


def _inline(text: str) -> str:
    """HTML of one line of text with the three marks that `quiz` promises."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    text = re.sub(r"\$(.+?)\$", r"\\(\1\\)", text)
    return re.sub(r"\*(\S.*?)\*", r"<em>\1</em>", text)


def interactive(figure, alt: str) -> None:
    """Show a plotly figure that turns and answers to the pointer, in a live notebook and in the static book.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        Shown on a transparent background; left as it is.
    alt : str
        What the figure shows, for someone who cannot see it.
    """
    import plotly.graph_objects as go

    clear = "rgba(0,0,0,0)"
    shown = go.Figure(figure).update_layout(paper_bgcolor=clear, plot_bgcolor=clear)
    shown.update_layout(height=shown.layout.height or 480, font_color=shown.layout.font.color or "#808080")
    if os.environ.get("CONVERGENT_BOOK") != "1":
        shown.show()
        return
    # The page's own script draws it from its own copy of plotly.js, when the reader scrolls there.
    drawing = shown.to_json().replace("</", "<\\/")
    display(
        {
            "text/html": f'<div class="interactive" role="figure" aria-label="{html.escape(alt)}" '
            f'style="min-height: {shown.layout.height}px"><script type="application/json">{drawing}</script></div>',
            "text/plain": alt,
        },
        raw=True,
    )
