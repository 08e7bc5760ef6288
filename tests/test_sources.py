"""What lies in the repository is as a reader, papermill and the book builder expect it."""

import ast
import re

import nbformat
import pytest
import yaml

from conftest import NOTEBOOKS, ROOT

pytestmark = pytest.mark.smoke


def code_cells(notebook):
    return [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


def parse(source):
    """Syntax tree of a cell, its magics left out."""
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))


def files_of(entry):
    """Every `file:` and `root:` below an entry of _toc.yml."""
    if isinstance(entry, list):
        return [file for item in entry for file in files_of(item)]
    if not isinstance(entry, dict):
        return []
    own = [entry[key] for key in ("root", "file") if key in entry]
    return own + [file for value in entry.values() for file in files_of(value)]


CONTENTS = files_of(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


# --- notebooks ---------------------------------------------------------------------------------------


def test_notebook_sources_carry_no_outputs(notebook):
    for cell in code_cells(notebook):
        assert not cell.outputs, f"outputs after: {cell.source[:60]}"
        assert cell.execution_count is None


def test_notebooks_name_the_kernel_that_every_jupyter_has(notebook):
    assert nbformat.read(notebook, 4).metadata.kernelspec.name == "python3"


def test_one_cell_declares_parameters_with_types_and_comments(notebook):
    [cell] = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+: [\w| ]+ = .+?  # \S.*", line), f"not `name: type = value  # comment`: {line}"
    assert re.search(r'^tier: str = "laptop"', cell.source, re.M)


def test_parameters_are_checked_in_the_cell_after_them(notebook):
    cells = code_cells(notebook)
    [declared] = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert re.search(r"^(\w+\.)?check_parameters\(.*\btier=", cells[declared + 1].source, re.M)


def test_the_last_cell_is_the_stamp(notebook):
    assert f'stamp("{notebook.stem}"' in code_cells(notebook)[-1].source


def test_cells_are_short(notebook):
    long = [cell.source for cell in code_cells(notebook) if len(cell.source.splitlines()) > 15]
    assert not long, f"more than 15 lines:\n{long[0]}"


def test_no_function_in_a_notebook_is_longer_than_ten_lines(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs in lib/convergent"


def test_no_measured_number_is_typed_into_prose(builder, notebook):
    assert builder.unrecorded_numbers(nbformat.read(notebook, 4)) == []


def test_every_caption_comes_with_alt_text_and_every_alt_text_with_a_caption(notebook):
    for cell in code_cells(notebook):
        about = cell.metadata.get("mystnb", {})
        caption, alt = about.get("figure", {}).get("caption"), about.get("image", {}).get("alt")
        alt = alt or (re.search(r"\balt=", cell.source) and "in interactive()")
        assert bool(caption) == bool(alt), f"caption: {caption!r}, alt text: {alt!r}\n{cell.source}"


# --- library, contents and configuration -------------------------------------------------------------


def test_no_file_of_the_library_is_longer_than_400_lines():
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "lib").rglob("*.py")}
    assert lengths
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_the_contents_list_every_chapter_and_every_page_once():
    chapters = [f"notebooks/{path.stem}" for path in NOTEBOOKS]
    pages = [f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")]
    made = ["book/execution_times"]  # by book/build.py, from the runs
    assert sorted(CONTENTS) == sorted(chapters + pages + made)
    assert [file for file in CONTENTS if file in chapters] == chapters, "chapters are not in order"


def test_the_book_is_built_without_executing_and_without_foreign_hosts():
    assert CONFIG["execute"]["execute_notebooks"] == "off"
    assert "://" not in yaml.safe_dump(CONFIG["sphinx"])


def test_every_file_that_the_configuration_names_exists():
    sphinx = CONFIG["sphinx"]["config"]
    [static] = sphinx["html_static_path"]
    own = [*sphinx["html_css_files"], *sphinx["html_js_files"], sphinx["mathjax_path"]]
    named = [*CONFIG["bibtex_bibfiles"], CONFIG["html"]["favicon"], *(f"{static}/{name}" for name in own)]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert (ROOT / static / "vendor" / "mathjax" / "LICENSE").is_file()


def test_launch_buttons_lead_to_the_repository_root():
    assert CONFIG["repository"]["path_to_book"] == "", "pages keep the repository's own paths"
    assert CONFIG["repository"]["url"].startswith("https://github.com/")
    assert {"binderhub_url", "colab_url", "thebe"} <= CONFIG["launch_buttons"].keys()
