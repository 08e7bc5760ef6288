"""What the execution of a notebook depends on, as hashes, and the kernel that executes it."""

import ast
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from . import paths

# Whose versions a number may depend on.
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "POT", "timm")
_LIBRARY = Path(__file__).resolve().parent


def execution_key(root: Path, notebook: Path, parameters: dict) -> str:
    """Hash of all that an execution depends on: notebook, library, shipped data, tested versions, parameters.

    Parameters
    ----------
    root : the repository; with the notebook below it
    """
    depends = [notebook, root / "constraints.txt", *_code(root / "lib" / "convergent")]
    for folder in ("zoo", "published"):
        depends += [path for path in (root / "data" / folder).rglob("*") if path.is_file()]
    told = json.dumps(parameters, sort_keys=True).encode()
    return hash_of_files(filter(Path.is_file, depends), root, told)[:16]


def hash_of_files(files: Iterable[Path], root: Path, start: bytes = b"") -> str:
    """SHA-256 of names below `root` and contents, in hexadecimal; the order of the files does not matter."""
    digest = hashlib.sha256(start)
    for path in sorted(files):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def hash_of(content) -> str:
    """SHA-256 of what JSON can hold, in hexadecimal; the order of the names does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- parts of what one run depends on --------------------------------------------------------------


def library_hash() -> str:
    """Hash of this library's own files."""
    return hash_of_files(_code(_LIBRARY), _LIBRARY)[:16]


def _code(folder: Path) -> list[Path]:
    """The library's modules, and the claims that they weigh."""
    return [path for path in folder.iterdir() if path.suffix in (".py", ".yml")]


def shipped_hash() -> str:
    """Hash of the trained networks and result tables that come with the book."""
    files = (path for folder in ("zoo", "published") for path in (paths.data() / folder).rglob("*"))
    return hash_of_files((path for path in files if path.is_file()), paths.data())[:16]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose numbers a notebook reports; those not installed are left out."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def source_hash(notebook: dict) -> str:
    """Hash of what stands in a notebook's cells; outputs, and the cell that papermill put in, do not count."""
    cells = [c for c in notebook["cells"] if not _PUT_IN & set(c["metadata"].get("tags", []))]
    sources = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    return hash_of(sources)[:16]


_PUT_IN = {"injected-parameters", "papermill-error-cell-tag"}


def hash_of_named(value, known: dict) -> str | None:
    """Hash of the image set, files and folders that a parameter's value names; None where it names none.

    `known` keeps what was found, so that a set which twelve runs share is read once. A path may stand alone or within
    a longer name ("checkpoint:a.safetensors?architecture=cnn6"). Files count with their content, folders with the
    names, sizes and times of their files.
    """
    if not isinstance(value, str):
        return None
    if value not in known:
        found = []
        for name in dict.fromkeys([value, *re.split(r"[,;?&=]|:(?!//)", value)]):
            path = _image_set(name) or Path(name)
            if name and name not in (".", "..", "/") and path.exists():
                found.append(f"{name} {_content(path)}")
        known[value] = hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else None
    return known[value]


def _image_set(name: str) -> Path | None:
    if name not in ("cifar10", "cifar100", "tiny-imagenet"):  # the others are drawn by the library itself
        return None
    from . import images

    return images.source(name)


def _content(path: Path) -> str:
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    from .image_files import fingerprint

    return fingerprint(path)


# --- parameters ------------------------------------------------------------------------------------


def declared(notebook: dict) -> dict[str, tuple[str, object]]:
    """Parameter -> (annotation, default) of the cell tagged `parameters`.

    Raises
    ------
    ValueError where there is no such cell, or it holds anything but annotated assignments of constants.
    """
    cells = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells are tagged `parameters`; one is needed, such as `seeds: int = 4  # …`")
    found = {}
    for line in ast.parse("".join(cells[0]["source"])).body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
            raise ValueError(f"the cell of parameters holds {ast.unparse(line)!r}; write it as `seeds: int = 4  # …`")
        try:
            found[line.target.id] = ast.unparse(line.annotation), ast.literal_eval(line.value)
        except ValueError as error:
            raise ValueError(f"the default of parameter {line.target.id!r} is no constant") from error
    return found


# --- the kernel ------------------------------------------------------------------------------------


def skip_grammar_of_addresses() -> None:
    """Have jsonschema, and so nbformat and papermill, load in a tenth of the time, where they are not loaded yet.

    It would compile a grammar of international internet addresses, for two seconds, that no notebook has a use for.
    """
    sys.modules.setdefault("rfc3987_syntax", None)


@contextmanager
def kernel_of_this_python(**environment: str) -> Iterator[None]:
    """Have kernels named python3 run this interpreter, whatever kernels the reader has installed.

    They find `environment` in theirs, and do not warn about the plain TCP that Jupyter speaks inside one machine.
    """
    from ipykernel.kernelspec import make_ipkernel_cmd, write_kernel_spec

    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        about = {"env": environment, "argv": [*make_ipkernel_cmd(), "--log-level=ERROR"]}
        write_kernel_spec(Path(folder) / "kernels" / "python3", about)
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before
