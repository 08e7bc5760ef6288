"""The builder executes what changed and nothing else, and stops with words that help."""

import io
import shutil
import sys

import nbformat
import pytest
from tqdm import tqdm

from conftest import ROOT
from convergent.results import read_records

CONFIG = ["_config.yml", "book/_static/custom.css", "book/_static/custom.js", "book/_static/favicon.svg"]
MATHJAX = "book/_static/vendor/mathjax/tex-svg-full.js"


def notebook_of(*cells):
    """A notebook; Markdown where a cell is not code in a tuple with its tags."""
    made = [
        nbformat.v4.new_code_cell(cell[0], metadata={"tags": list(cell[1:])})
        if isinstance(cell, tuple)
        else nbformat.v4.new_markdown_cell(cell)
        for cell in cells
    ]
    return nbformat.v4.new_notebook(
        cells=made, metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    )


GOOD = (
    "# A page\n\nSeen {glue:text}`count` times, $x = 0.5$, see {doc}`/book/intro`.",
    ('tier: str = "laptop"  # how much', "parameters"),
    ("import os, sys\nfrom convergent.results import record",),
    ("record('count', 3)\nrecord('python', sys.executable)\nrecord('book', os.environ['CONVERGENT_BOOK'])",),
)


@pytest.fixture
def book(tmp_path):
    """A little repository with one chapter, and a function that replaces the chapter's cells."""
    for name in (*CONFIG, MATHJAX):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\nchapters:\n- file: notebooks/01_page\n")
    (tmp_path / "book" / "intro.md").write_text("# Welcome\n\nA page of prose.\n")
    (tmp_path / "book" / "references.bib").write_text("")
    (tmp_path / "lib" / "convergent").mkdir(parents=True)
    (tmp_path / "lib" / "convergent" / "zoo.py").write_text("one = 1\n")
    (tmp_path / "notebooks").mkdir()

    def write(*cells):
        nbformat.write(notebook_of(*cells), tmp_path / "notebooks" / "01_page.ipynb")
        return tmp_path

    write(*GOOD)
    return tmp_path, write


@pytest.fixture
def run(builder, book):
    """A function: path of the chapter's execution, of this moment's sources."""
    root, _ = book
    return lambda parameters=None: builder.execute(
        root, root / "notebooks" / "01_page.ipynb", root / "_build" / "executed", parameters
    )


# --- execution ---------------------------------------------------------------------------------------


def test_a_chapter_runs_with_the_python_that_builds_and_knows_that_it_is_in_a_book(run):
    records = read_records(run())
    assert records["python"] == sys.executable
    assert records["book"] == "1"


def test_a_chapter_is_executed_again_only_when_something_it_depends_on_has_changed(book, run):
    root, write = book
    first = run()
    ran = first.stat().st_mtime_ns
    (root / "book" / "intro.md").write_text("# Welcome\n\nOther prose.\n")
    assert run().stat().st_mtime_ns == ran
    (root / "lib" / "convergent" / "zoo.py").write_text("one = 2\n")
    second = run()
    assert second != first
    (root / "constraints.txt").write_text("torch==2.0\n")
    third = run()
    assert third not in (first, second)
    (root / "lib" / "convergent" / "claims.yml").write_text("rule: another\n")
    fourth = run()
    assert fourth not in (first, second, third), "the boxes show the claims of the file"
    assert run({"tier": "smoke"}) not in (first, second, third, fourth)


def test_a_failing_cell_is_named_and_the_notebook_kept_as_far_as_it_got(builder, book, run):
    root, write = book
    write(*GOOD, "More.", ("raise ValueError('no such layer:\\nconv9')",), ("print('never')",))
    with pytest.raises(builder.BuildError) as failure:
        run()
    message = str(failure.value)
    assert "01_page.ipynb, cell 6 of 7 failed" in message
    assert "ValueError: no such layer:" in message
    kept = root / "_build" / "executed" / "01_page.failed.ipynb"
    assert str(kept) in message
    assert read_records(kept)["count"] == 3
    assert list(kept.parent.glob("01_page-*.ipynb")) == [], "a failed execution must not be used"


def test_the_command_ends_with_an_error_code_when_a_chapter_fails(builder, book, monkeypatch, capsys):
    root, write = book
    write(*GOOD, ("1 / 0",))
    monkeypatch.setattr(sys, "argv", ["build.py", "--root", str(root)])
    assert builder.main() == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


# --- prose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prose",
    [
        "It correlates at 0.83 with the other.",
        "Accuracy is 83 % on the cave.",
        "Accuracy is 83% now.",
        "It is 3.5 times as large.",
        "Seven, or 12 times, as large.",
        "It fell by 4 per cent.",
        "- a list with −0.07\n- another",
        "| layer | score |\n| --- | --- |\n| one | 0.61 |",
        ":::{admonition} What we find\n:class: claim\n\nIt is 0.83.\n:::",
        "See {cite}`kapoor2025`. We find 0.73.",
        "| 0.73 {cite}`kapoor2025` | 0.71 |",
        "A `code 0.5` and then 0.7.",
    ],
)
def test_a_measured_number_typed_into_prose_is_found(builder, prose):
    assert len(builder.unrecorded_numbers(notebook_of(prose))) == 1


@pytest.mark.parametrize(
    "prose",
    [
        "It correlates at {glue:text}`r:.2f`, {glue:text}`share:.0%` of it.",
        "Images of 32x32 pixels in 10 shapes, 20,000 of them, in 2025, from 7 photographs.",
        "Set `gain=0.5`, where $\\alpha = 0.1$ and\n\n$$\ny = 0.5 x\n$$",
        "```python\nx = 0.5\n```",
        "## 2.1 Half, or 50 %\n\nSee section 2.1, Fig. 1.2, eq. 5.1, chapters 4.1 and 4.2, and exercise 1.2.",
        "It needs Python 3.11 and is CC BY 4.0, arXiv 2502.18710.",
        "Bands are 95 % bootstrap intervals.",
        "They report 0.73 {cite:p}`kapoor2025`.",
        "[a link](https://example.org/1.5/x) and https://doi.org/10.1000/1.5",
        ":::{admonition} Predict first\n:class: predict\nAbout 0.1, 0.5 or 0.9?\n:::\n",
        "```{figure} x.png\n:width: 80%\n\nA caption.\n```",
    ],
)
def test_other_numbers_may_be_typed_into_prose(builder, prose):
    assert builder.unrecorded_numbers(notebook_of(prose)) == []


def test_captions_and_alt_texts_are_prose_too(builder):
    for about in ({"figure": {"caption": "**Falls** to 0.3."}}, {"image": {"alt": "A line that falls to 0.3."}}):
        notebook = notebook_of(("plot()",))
        notebook.cells[0].metadata["mystnb"] = about
        assert len(builder.unrecorded_numbers(notebook)) == 1


def test_prose_that_reads_a_number_that_no_cell_records_stops_the_build(builder, book):
    root, write = book
    write(*GOOD, "It is {glue:text}`typo:.2f`.")
    with pytest.raises(builder.BuildError, match="01_page.ipynb: prose reads 'typo', which no cell records"):
        builder.build(root)


# --- pages -------------------------------------------------------------------------------------------


def test_a_book_shows_recorded_numbers_without_the_cell_that_papermill_put_in(builder, book):
    root, _ = book
    page = builder.build(root, tier="smoke")
    assert page == root / "_build" / "html" / "index.html"
    text = (page.parent / "notebooks" / "01_page.html").read_text()
    assert '<span class="pasted-text">3</span>' in text
    assert "# Parameters" not in text
    times = nbformat.read(next((root / "_build" / "executed").glob("01_page-*.ipynb")), 4).metadata.papermill
    assert times.parameters == {"tier": "smoke"}
    assert "smoke" in (root / "_build" / "stage" / "book" / "execution_times.md").read_text()


def test_progress_bars_do_not_get_into_the_page_and_warnings_do(builder):
    said = io.StringIO()
    for total in (3, None):
        for _ in tqdm(range(3), total=total, file=said, desc="seed 0", postfix={"loss": 2.3}, mininterval=0):
            pass
    warning = "lib/x.py:3: UserWarning: two units are constant [units 3 and 4]\n"
    notebook = notebook_of(("train()",), ("other()",))
    for cell, text in zip(notebook.cells, (said.getvalue(), said.getvalue() + warning), strict=True):
        cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text=text)]
    builder.drop_progress_bars(notebook)
    assert [[output.text for output in cell.outputs] for cell in notebook.cells] == [[], [warning]]


def test_a_warning_stops_the_build_and_the_last_good_book_stays(builder, book):
    root, write = book
    html = root / "_build" / "html"
    html.mkdir(parents=True)
    (html / "index.html").write_text("the last good book")
    (root / "book" / "intro.md").write_text("# Welcome\n\n{doc}`nowhere`\n")
    with pytest.raises(builder.BuildError, match="book/intro.md.*WARNING.*nowhere"):
        builder.build(root)
    assert (html / "index.html").read_text() == "the last good book"


def test_a_preview_of_a_chapter_leaves_the_book_alone(builder, book):
    root, _ = book
    assert builder.build(root, only="01_page") == root / "_build" / "preview" / "index.html"
    assert not (root / "_build" / "html").exists()
    with pytest.raises(builder.BuildError, match="no chapter '02_page': 01_page"):
        builder.build(root, only="02_page")
