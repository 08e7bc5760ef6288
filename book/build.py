"""From notebooks to the book: execute the chapters that changed, lay out the pages, build them (`make book`).

    python book/build.py [--only NAME] [--tier TIER] [--force]

Executed chapters are kept in `_build/executed/` under a hash of all they depend on, so that a build that was
interrupted goes on where it stopped, and a change of prose executes nothing. The book is `_build/html`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import papermill
import plotly
import yaml
from filelock import FileLock
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "book")]  # this checkout's, whatever is installed
from convergent.execution import execution_key, kernel_of_this_python  # noqa: E402
from convergent.results import TIERS, read_records, read_stamp  # noqa: E402
from prose import GLUE, errors, missing_records, unrecorded_numbers  # noqa: E402, F401  # the last two for tests

_KEPT = 4  # executions of one chapter: of the last few versions, or tiers


class BuildError(Exception):
    """What the reader has to mend before there can be a book."""


# --- execution -------------------------------------------------------------------------------------


def chapters(root: Path) -> list[Path]:
    """Notebooks that `_toc.yml` lists, in its order."""
    files = re.findall(r"^\s*-?\s*(?:file|root):\s*(\S+)", (root / "_toc.yml").read_text(encoding="utf-8"), re.M)
    return [path for path in (root / f"{file}.ipynb" for file in files) if path.is_file()]


def execute(root: Path, notebook: Path, folder: Path, parameters: dict | None = None, force=False) -> Path:
    """Path of the executed notebook in `folder`: an earlier execution of the very same, or a new one.

    Raises
    ------
    BuildError
        When a cell fails; it names the notebook, the cell and the error, and the notebook is kept as far as it got.
    """
    parameters = parameters or {}
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{notebook.stem}-{execution_key(root, notebook, parameters)}.ipynb"
    with FileLock(folder / f"{notebook.stem}.lock"):
        if force or not done.is_file():
            partial = folder / f"{notebook.stem}.partial.ipynb"
            _papermill(notebook, partial, parameters)
            os.replace(partial, done)  # at once: what has its final name is complete
            earlier = sorted(folder.glob(f"{notebook.stem}-*.ipynb"), key=lambda p: p.stat().st_mtime)
            for path in earlier[:-_KEPT]:
                path.unlink()
    return done


def _papermill(notebook: Path, output: Path, parameters: dict) -> None:
    quiet = {} if sys.stderr.isatty() else {"mininterval": 10}
    try:
        with kernel_of_this_python(CONVERGENT_BOOK="1"):  # they know that they make pages
            papermill.execute_notebook(
                notebook,
                output,
                parameters,
                kernel_name="python3",
                cwd=notebook.parent,
                progress_bar={"desc": notebook.stem, "dynamic_ncols": True, **quiet},
            )
    except PapermillExecutionError as error:
        kept = output.with_name(f"{notebook.stem}.failed.ipynb")
        os.replace(output, kept)
        raise BuildError(_failure(notebook, kept, error)) from error
    except DeadKernelError as error:
        raise BuildError(
            f"{notebook.name}: its process was ended from outside, most often for want of memory."
        ) from error


def _failure(notebook: Path, kept: Path, error: PapermillExecutionError) -> str:
    cells = [c for c in nbformat.read(kept, 4).cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    marked = [i for i, c in enumerate(cells, 1) if any(o.output_type == "error" for o in c.get("outputs", []))]
    said = "\n".join(f"{error.ename}: {error.evalue}".splitlines()[:8])
    code = "\n".join(error.source.splitlines()[:6])
    return (
        f"{notebook.name}, cell {marked[0] if marked else '?'} of {len(cells)} failed.\n\n"
        f"{textwrap.indent(code, '    ')}\n\n{textwrap.indent(said, '  ')}\n\nThe notebook as far as it got: {kept}"
    )


# --- pages -----------------------------------------------------------------------------------------


def lay_out(root: Path, executed: dict[Path, Path], stage: Path) -> None:
    """Lay in `stage` all that Jupyter Book needs, at the repository's own paths (launch buttons rely on them)."""
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, stage)
    shutil.copytree(root / "book", stage / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", stage / "book" / "_static")
    for source, path in executed.items():
        notebook = nbformat.read(path, 4)
        notebook.metadata.pop("papermill", None)  # would be shown on top of the page
        drop_progress_bars(notebook)
        records = read_records(notebook)
        notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
        for cell in notebook.cells:
            image = cell.metadata.get("mystnb", {}).get("image", {})
            if "alt" in image:  # plain text to MyST-NB: numbers have to be set here
                image["alt"] = GLUE.sub(lambda read, r=records: format(r[read[1]], read[2] or ""), image["alt"])
        nbformat.write(notebook, stage / source.relative_to(root))
    for script in sorted((root / "book").glob("*_page.py")):  # of them, the ledger reads the notebooks
        _fill_page(script, stage / "book")
    (stage / "book" / "execution_times.md").write_text(_execution_times(executed), encoding="utf-8")


def _fill_page(script: Path, folder: Path) -> None:
    """Have a script put numbers and figures from shipped tables, or from the chapters beside it, into its page."""
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{script.name} failed:\n{done.stderr.strip()}")


def drop_progress_bars(notebook) -> None:
    """Take the bars of tqdm out of what the cells wrote; warnings and all else they wrote stay."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                parts = re.split(r"[\r\n]+", output.text)
                kept = [part for part in parts if part.strip() and not re.search(r"\d+(%\||it |/\S+ ).*\[.*\]", part)]
                output.text = "".join(f"{part}\n" for part in kept)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", "some")]


def _execution_times(executed: dict[Path, Path]) -> str:
    rows, total = [], 0.0
    for source, path in executed.items():
        notebook = nbformat.read(path, 4)
        ran, told = notebook.metadata.papermill, read_stamp(notebook)
        tier = ran.parameters.get("tier", "laptop")
        total += ran.duration / 60
        rows.append(
            f"| {{doc}}`/notebooks/{source.stem}` | {tier} | {ran.duration / 60:.1f} | {told.get('memory', '–')} "
            f"| {told.get('device', '–')} | {ran.end_time[:10]} | {told.get('code', '–')} |"
        )
    return (
        "# Execution times\n\n"
        f"What you read was computed by the runs below, {total:.1f} minutes in all. "
        "Memory is the most that the notebook's process held.\n\n"
        "| chapter | tier | minutes | memory | device | date | code |\n| --- | --- | --: | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def make_html(stage: Path, html: Path, strict: bool = True) -> None:
    """Build the pages laid out in `stage` and put them in place of `html`; warnings are errors when `strict`."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(stage)]
    done = subprocess.run([*command, *(["-W", "--keep-going"] if strict else [])], capture_output=True, text=True)
    log = stage / "book.log"
    log.write_text(done.stdout + "\n" + done.stderr, encoding="utf-8")
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stderr).replace(f"{stage}{os.sep}", "")
    warnings = [line for line in plain.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b", line)]
    built = stage / "_build" / "html"
    if done.returncode or not (built / "index.html").is_file():
        said = warnings or plain.strip().splitlines()[-12:]
        raise BuildError("\n".join([*said, f"The pages are not built. All that was said: {log}"]))
    if warnings:
        print("\n".join(warnings))
    for page in built.rglob("*.html"):
        _once(page)
    old = html.with_name(f"{html.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if html.exists():
        html.rename(old)
    html.parent.mkdir(parents=True, exist_ok=True)
    built.rename(html)
    shutil.rmtree(old, ignore_errors=True)


def _once(page: Path) -> None:
    """Drop inline scripts that Sphinx 7 writes twice: the second `const` of sphinx-thebe is an error in browsers."""
    seen = set()

    def first(script):
        return "" if script[0] in seen else seen.add(script[0]) or script[0]

    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"[ \t]*<script>[^<]*</script>\n", first, text), encoding="utf-8")


def keep_only(stage: Path, kept: set[str]) -> None:
    """Take the other notebooks out of the contents of a preview."""

    def keep(entry):
        if isinstance(entry, list):
            return [k for k in map(keep, entry) if k is not None]
        if not isinstance(entry, dict):
            return entry
        if entry.get("file", "").startswith("notebooks/") and Path(entry["file"]).name not in kept:
            return None
        return {name: keep(value) for name, value in entry.items()}

    toc = stage / "_toc.yml"
    contents = keep(yaml.safe_load(toc.read_text(encoding="utf-8")))
    if "parts" in contents:
        contents["parts"] = [part for part in contents["parts"] if part["chapters"]]
    toc.write_text(yaml.safe_dump(contents, sort_keys=False), encoding="utf-8")


def build(root: Path = ROOT, only: str | None = None, tier: str | None = None, force=False, work=None) -> Path:
    """Make the book of the repository at `root`; path of its first page. Everything made is below `work`."""
    work = work or root / "_build"
    notebooks = [n for n in chapters(root) if only is None or n.stem == only]
    if only and not notebooks:
        raise BuildError(f"no chapter {only!r}: {', '.join(n.stem for n in chapters(root))}.")
    parameters = {"tier": tier} if tier else {}
    executed = {n: execute(root, n, work / "executed", parameters, force) for n in notebooks}
    pages = {page.name: page.read_text(encoding="utf-8") for page in sorted((root / "book").glob("*.md"))}
    if said := errors(executed, pages):
        raise BuildError("\n".join(said))
    stage = work / "stage"
    lay_out(root, executed, stage)
    if only:
        keep_only(stage, {only})
    print("Building the pages ...", flush=True)
    html = work / ("preview" if only else "html")
    make_html(stage, html, strict=only is None)
    return html / "index.html"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="a preview of this chapter alone (01_...), in _build/preview")
    parser.add_argument("--tier", choices=TIERS, help="execute at this tier instead of the notebooks' own")
    parser.add_argument("--force", action="store_true", help="execute chapters that have not changed, too")
    parser.add_argument("--root", type=Path, default=ROOT, help="another folder of this repository's layout")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        page = build(options.root.resolve(), options.only, options.tier, options.force)
    except BuildError as error:
        print(f"\nNo book: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Finished chapters are kept: run it again to go on from there.", file=sys.stderr)
        return 130
    print(f"The book is ready after {(time.monotonic() - started) / 60:.1f} minutes: open {page}")
    print(f"or, for search to work, run: python -m http.server --directory {page.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
