"""Where things lie, whatever folder a notebook runs from: a checkout, or the installed package."""

import os
from importlib.util import find_spec
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]


def data() -> Path:
    """Folder of shipped data (`zoo/`, `published/`): the checkout's `data/`, or the copy inside the wheel."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "data"
    return Path(next(iter(find_spec("convergent_data").submodule_search_locations)))


def cache() -> Path:
    """Folder for downloads, decoded image sets and networks trained here; made when missing.

    `$CONVERGENT_CACHE`, else `data/cache/` of a checkout, else `~/.cache/convergent`.
    """
    if os.environ.get("CONVERGENT_CACHE"):
        folder = Path(os.environ["CONVERGENT_CACHE"]).expanduser()
    elif (_CHECKOUT / "pyproject.toml").is_file():
        folder = _CHECKOUT / "data" / "cache"
    else:
        folder = Path("~/.cache/convergent").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
