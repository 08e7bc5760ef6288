"""Every claim has its rule, its chapter and its record, and no sentence of the book says otherwise than the ledger."""

import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

from conftest import CHAPTERS, ROOT
from convergent import claims, claims_ledger, paths
from convergent.claims_ledger import FILE, every

sys.path.append(str(ROOT / "book"))
import prose

smoke = pytest.mark.smoke
PAGE = (ROOT / "book" / "claims.md").read_text(encoding="utf-8")
# `claims.weigh("id", ...)`, `claims.ids("prefix_")`, and f-strings that begin with what is sought
ASKED = re.compile(r'(?:claims\.|\()(?:weigh|ids)\(f?"([a-z_0-9]+)')


# --- the file ----------------------------------------------------------------------------------------


@smoke
def test_no_claim_stands_twice_and_each_has_words_that_need_no_row_above_them():
    text = FILE.read_text(encoding="utf-8")
    keys = re.findall(r"(?m)^ {2,6}(\w+):$", text)  # YAML keeps the last of two equal keys, and says nothing
    assert len(keys) == len(set(keys) | {"claims"}) + keys.count("claims") - 1
    for claim in every().values():
        assert not claim.statement.startswith("…"), claim.id
        assert claim.statement.endswith("."), claim.id
        assert claim.statistic, claim.id
        assert claim.source, claim.id
        assert claim.high != claim.low, f"{claim.id} compares a condition with itself"
    statements = [claim.statement for claim in every().values()]
    assert sorted(set(statements)) == sorted(statements), "two claims say the same"


@smoke
def test_every_claim_names_a_published_table():
    there = {path.stem for path in (paths.data() / "published").glob("*.json")}
    assert {claim.table for claim in every().values()} <= there


@smoke
def test_every_claim_is_weighed_in_one_notebook_and_every_notebook_asks_for_claims_that_exist():
    asked = {}
    for notebook in CHAPTERS:
        cells = nbformat.read(notebook, 4).cells
        asked[notebook.stem] = {name for c in cells if c.cell_type == "code" for name in ASKED.findall(c.source)}
    for notebook, names in asked.items():
        for name in names:
            assert any(i.startswith(name) for i in every()), f"{notebook} asks for {name!r}, which is in no claim"
    for claim in every().values():
        assert [n for n, names in asked.items() if any(map(claim.id.startswith, names))] == [claim.notebook], claim.id


@smoke
@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"statement": None}, "'one' goes on from the row above it"),
        ({"high": None}, "'one' in claims.yml: missing 1 required positional argument: 'high'"),
        ({"hihg": "a"}, "'one' in claims.yml: got an unexpected keyword argument 'hihg'"),
        ({"paper": "nobody"}, "'one': paper 'nobody'"),
        ({"written": "yesterday"}, "'one': paper 'kapoor2025', written 'yesterday'"),
    ],
)
def test_a_claim_that_lacks_something_is_refused(about, message):
    whole = {"claim": "… more", "statement": "More.", "source": "K", "high": "a", "low": "b", "statistic": "r"}
    whole |= {"paper": "kapoor2025", "table": "depth"} | about
    with pytest.raises(ValueError, match=message):
        claims_ledger._claim("one", "04_depth", {name: value for name, value in whole.items() if value is not None})


@smoke
def test_an_unknown_id_names_the_nearest():
    with pytest.raises(
        ValueError, match="no claim 'depth_halve_linear' in claims.yml. Did you mean 'depth_halves_linear'"
    ):
        claims.weigh("depth_halve_linear", {})
    with pytest.raises(ValueError, match="no claim in claims.yml has an id that begins with 'dept_'"):
        claims.ids("dept_")
    assert claims.ids("learned_") == ["learned_procrustes", "learned_soft_matching"]


# --- executed chapters -------------------------------------------------------------------------------


def test_every_claim_of_a_chapter_has_a_record_and_no_box_a_row_without(execute_at_smoke, chapter):
    notebook = nbformat.read(execute_at_smoke(chapter), 4)
    assert prose.outside_the_ledger(chapter.stem, notebook) == []


def test_boxes_and_ledger_say_the_same(execute_at_smoke, chapter):
    notebook = nbformat.read(execute_at_smoke(chapter), 4)
    rows = {}
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        box = BeautifulSoup("".join(output.get("data", {}).get("text/html", "")), "html.parser").select_one(
            "div.claims"
        )
        for row in box.select("tbody tr") if box else []:
            assert row["id"] not in rows, "two boxes of a chapter have one name"
            rows[row["id"]] = [cell.get_text("\n") for cell in row.select("td")[2:]]
    found = claims_ledger.found(notebook)
    assert sorted(rows) == sorted(f"{one.box}-{one.claim.id}" for one in found)
    for one in found:
        for shown, told in zip(rows[f"{one.box}-{one.claim.id}"], one.runs.values(), strict=True):
            if isinstance(told, str):
                assert shown == told
                continue
            verdict, numbers = shown.split("\n")
            assert verdict == told["verdict"]
            assert f"{told['high_mean']:.2f} [" in numbers
            assert f"in {told['n_holds']} of {told['n']} {told['by']}s" in numbers


def test_no_sentence_of_a_chapter_contradicts_the_published_runs(execute_at_smoke, chapter):
    own = "\n\n".join(prose.texts(nbformat.read(chapter, 4)))
    found = claims_ledger.found(execute_at_smoke(chapter))
    assert prose.contradicted(own, found, {chapter.stem}) == []


@smoke
@pytest.mark.parametrize("path", [*CHAPTERS, *sorted((ROOT / "book").glob("*.md"))], ids=lambda path: path.stem)
def test_no_verdict_is_typed_in_without_a_mark(path):
    text = path.read_text(encoding="utf-8")
    texts = prose.texts(json.loads(text)) if path.suffix == ".ipynb" else [text]
    assert [sentence for one in texts for sentence in prose.typed_verdicts(one)] == []


# --- the checks themselves ---------------------------------------------------------------------------


def found(verdict="reproduced", run="published: photographs"):
    return [claims_ledger.Found(every()["depth_families_linear"], "claims", {run: {"verdict": verdict}})]


MARK = "So it comes out.<!-- verdict: reproduced (depth_families_linear) -->"


@smoke
def test_a_mark_that_the_ledger_does_not_bear_out_is_found():
    assert prose.contradicted(MARK, found(), {"04_depth"}) == []
    [line] = prose.contradicted(MARK, found("partly"), {"04_depth"})
    assert line == "says that depth_families_linear is reproduced; the ledger: partly in 'published: photographs'"
    [line] = prose.contradicted(MARK, found("reproduced", "this run: the cave"), {"04_depth"})
    assert line.endswith("the ledger: nothing published")
    assert prose.contradicted(MARK, [], {"05_layer_correspondence"}) == [], "a chapter that was not executed"
    [line] = prose.contradicted("<!-- verdict: holds (depth_families_linear) -->", found(), {"04_depth"})
    assert line == "a verdict's mark cannot be read"
    with pytest.raises(ValueError, match="Did you mean 'depth_families_linear'"):
        prose.contradicted(MARK.replace("linear", "linea"), found(), {"04_depth"})


@smoke
@pytest.mark.parametrize(
    "text",
    ["The claim is reproduced.", "It is *partly* so.", "This was not reproduced here.", "It was partly reproduced."],
)
def test_a_typed_verdict_needs_a_mark_of_the_same_verdict(text):
    assert len(prose.typed_verdicts(text)) == 1
    verdict = "partly" if "partly" in text else "not reproduced" if "not" in text else "reproduced"
    assert prose.typed_verdicts(f"{text}<!-- verdict: {verdict} (depth_end_soft) -->") == []
    other = "partly" if verdict != "partly" else "reproduced"
    assert len(prose.typed_verdicts(f"{text}<!-- verdict: {other} (depth_end_soft) -->")) == 1
    assert len(prose.typed_verdicts(f"{text}\n\nMore.<!-- verdict: {verdict} (depth_end_soft) -->")) == 1


@smoke
@pytest.mark.parametrize(
    "text",
    [
        "*Reproduced* when it holds in all, *partly* in more than half, *not reproduced* otherwise.",
        "The order is partly there before training.",
        "It reads {glue:text}`claims_depth_end_soft_run1`, and `not reproduced` is code.",
    ],
)
def test_rules_other_words_and_records_are_no_typed_verdicts(text):
    assert prose.typed_verdicts(text.replace("*Reproduced*", "*reproduced*")) == []


@smoke
def test_a_row_without_record_and_a_claim_without_row_are_found():
    rows = '<tr id="claims-x"><td>a</td></tr><tr><td>mine</td></tr>'
    box = f'<div class="claims"><table><tbody>{rows}</tbody></table></div>'
    output = nbformat.v4.new_output("display_data", data={"text/html": box})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    wrong = prose.outside_the_ledger("07_distribution_shift", notebook)
    assert wrong[:-1] == [f"claim {name!r} has no record" for name in claims.ids("shift_")]
    assert wrong[-1] == "the box's row 'mine' has no record: write the claim into claims.yml"


# --- the page ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(execute_at_smoke, tmp_path_factory):
    """The ledger of chapters 5 and 7, as text and as HTML."""
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "book").mkdir()
    (folder / "notebooks").mkdir()
    (folder / "book" / "claims.md").write_text(PAGE, encoding="utf-8")
    for name in ("05_layer_correspondence", "07_distribution_shift"):
        shutil.copy(execute_at_smoke(ROOT / "notebooks" / f"{name}.ipynb"), folder / "notebooks" / f"{name}.ipynb")
    subprocess.run([sys.executable, str(ROOT / "book" / "claims_page.py"), str(folder / "book")], check=True)
    text = (folder / "book" / "claims.md").read_text(encoding="utf-8")
    return text, BeautifulSoup(text, "html.parser")


def test_the_page_has_a_row_for_each_claim_and_run_with_date_and_link_to_its_box(page, execute_at_smoke):
    text, soup = page
    assert "{filled}" not in text
    assert re.findall(r"(?m)^## (.*)$", text)[1:-1] == ["Kapoor, Srivastava & Khosla 2025"]
    expected = {}
    for name in ("05_layer_correspondence", "07_distribution_shift"):
        for one in claims_ledger.found(execute_at_smoke(ROOT / "notebooks" / f"{name}.ipynb")):
            expected[f"../notebooks/{name}.html#{one.box}-{one.claim.id}"] = one
    assert [a["href"] for a in soup.select("div.ledger a")] == list(expected)
    rows = soup.select("div.ledger tbody tr")
    assert len(rows) == sum(len(one.runs) for one in expected.values())
    dates = json.loads((paths.data() / "published" / "shift.json").read_text(encoding="utf-8"))
    shown = " ".join(row.get_text(" ") for row in rows)
    for title, about in dates.items():
        assert f"published: {title} {about['date']}" in shown
    verdicts = [run["verdict"] for one in expected.values() for run in one.runs.values() if "verdict" in run]
    assert [mark.get_text() for mark in soup.select("div.ledger .verdict")] == verdicts


@smoke
def test_no_number_is_typed_into_the_page_and_the_rule_is_that_of_the_code(builder):
    assert builder.unrecorded_numbers({"cells": [{"cell_type": "markdown", "metadata": {}, "source": PAGE}]}) == []
    assert "{filled}`rule`" in PAGE
    for verdict in claims.VERDICTS:
        assert verdict in claims_ledger.rule()
    assert yaml.safe_load(FILE.read_text(encoding="utf-8"))["rule"].strip() == claims_ledger.rule()
