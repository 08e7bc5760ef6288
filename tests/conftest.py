"""Each notebook is executed once, at smoke, and built into one book, for all tests and all of their processes."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.name[0].isdigit()]  # the others are pages to look things up


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny networks on two threads wait more than they work; and one thread's results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_generate_tests(metafunc):
    for name, paths in (("notebook", NOTEBOOKS), ("chapter", CHAPTERS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths, ids=[path.stem for path in paths])


def pytest_collection_modifyitems(items):
    for item in items:
        if "html" in item.fixturenames:  # the first of them builds the book, the others wait for it
            item.add_marker(pytest.mark.timeout(3000))


@pytest.fixture(scope="session")
def builder():
    """The module `book/build.py`."""
    spec = importlib.util.spec_from_file_location("book_build", ROOT / "book" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A temporary folder that all processes of this test run share, and no other run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "book"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def execute_at_smoke(builder, shared_folder):
    """A function: path of a notebook to path of its execution at smoke."""
    return lambda notebook: builder.execute(ROOT, notebook, shared_folder / "executed", {"tier": "smoke"})


@pytest.fixture(scope="session")
def html(builder, shared_folder) -> Path:
    """Folder of the built book: `$CONVERGENT_HTML`, or one built here from executions at smoke."""
    if os.environ.get("CONVERGENT_HTML"):
        folder = Path(os.environ["CONVERGENT_HTML"]).resolve()
        assert (folder / "index.html").is_file(), f"CONVERGENT_HTML is {folder}, where there is no book"
        return folder
    with FileLock(shared_folder / "html.lock"):
        if not (shared_folder / "html" / "index.html").is_file():
            builder.build(ROOT, tier="smoke", work=shared_folder)
    return shared_folder / "html"
