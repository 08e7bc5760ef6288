"""A reproduction is judged by rules that were written down, and what was different about the runs is said."""

import json

import nbformat
import pandas as pd
import pytest

from convergent import diff, diff_sides, published
from convergent.__main__ import main

pytestmark = pytest.mark.smoke
REPEAT = "papermill notebooks/04_depth.ipynb 04_depth-again.ipynb -p tier {tier} -p dataset cifar10 -p seeds {seeds}"


def executed(path, values, tables=None, tier="laptop", seeds=4, code="commit 1", source="work()", images="a set"):
    """An executed notebook with these recorded values, kept tables and stamp."""
    outputs = [
        nbformat.v4.new_output(
            "display_data",
            {"application/papermill.record/text/plain": repr(value)},
            metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
        )
        for name, value in (values | {f"table_{k}": t.to_csv(index=False) for k, t in (tables or {}).items()}).items()
    ]
    told = {"code": code, "data": f"{images}, SHA-256 1f8afc43de4d", "device": "a processor", "software": "torch 2"}
    told["repeat"] = REPEAT.format(tier=tier, seeds=seeds)
    outputs.append(nbformat.v4.new_output("display_data", {"text/plain": ""}, metadata={"provenance": told}))
    cell = nbformat.v4.new_code_cell(source, outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def verdicts(found):
    return dict(zip(found.values.name, found.values.verdict, strict=True))


VALUES = {"slope": -0.07, "n": 28, "worst": "layer5", "tiny": 1e-12, "nothing": 0}


def test_a_run_reproduces_itself(tmp_path):
    a = diff_sides.read(executed(tmp_path / "a.ipynb", VALUES))
    found = diff.compare(a, a)
    assert found.reproduced
    assert set(found.values.verdict) == {diff.SAME}
    assert found.circumstances.set_index("what").same.to_dict() == {
        "data": True,
        "seed": True,
        "tier": True,
        "parameter dataset": True,
        "notebook": True,
        "library": True,
        "versions": True,
        "device": True,
    }


def test_each_value_is_judged_by_its_tolerance(tmp_path):
    changed = VALUES | {"slope": -0.07005, "n": 29, "worst": "layer4", "tiny": 2e-12, "new": 1.0}
    a, b = (diff_sides.read(executed(tmp_path / f"{i}.ipynb", v)) for i, v in enumerate((VALUES, changed)))
    found = verdicts(diff.compare(a, b))
    assert found == {
        "slope": "agrees",
        "n": "differs",
        "worst": "differs",
        "tiny": "differs",
        "nothing": "same",
        "new": "only in the second",
    }
    lenient = verdicts(diff.compare(a, b, tolerances={"n": 1, "t*": 1e-11}))
    assert (lenient["n"], lenient["tiny"]) == ("agrees", "agrees")
    assert verdicts(diff.compare(a, b, relative=1e-4))["slope"] == "differs"


@pytest.mark.parametrize(
    ("x", "y", "verdict"),
    [
        (1.0, 1.0 + 1e-9, "same"),
        (1.0, 1.0005, "agrees"),
        (1.0, 1.002, "differs"),
        (0.0, 1e-9, "differs"),
        (float("nan"), float("nan"), "same"),
        (float("nan"), 1.0, "differs"),
        (True, True, "same"),
        (True, False, "differs"),
        (1, "1", "differs"),
        (None, 1, "only in the second"),
    ],
)
def test_the_rule_for_two_values(x, y, verdict):
    assert diff.judge(x, y, diff.RELATIVE)[0] == verdict


def test_what_was_different_about_the_runs_is_said(tmp_path):
    a = diff_sides.read(executed(tmp_path / "a.ipynb", VALUES))
    b = diff_sides.read(
        executed(tmp_path / "b.ipynb", VALUES, tier="smoke", seeds=8, code="commit 2", source="other()", images="cave")
    )
    about = diff.circumstances(a, b).set_index("what")
    assert set(about[about.same == False].index) == {"data", "seed", "tier", "notebook", "library"}  # noqa: E712
    assert about.loc["seed", ["a", "b"]].tolist() == ["seeds=4", "seeds=8"]


def test_rows_of_tables_are_matched_by_their_names_whatever_their_order(tmp_path):
    table = pd.DataFrame(
        {
            "pair": ["0-1", "0-1", "1-2"],
            "layer": ["one", "two", "one"],
            "value": [0.5, 0.6, 0.7],
            "spread": [0.01, 0.01, float("nan")],
            "n_stimuli": [10, 10, 10],
        }
    )
    other = table.iloc[::-1].assign(value=[0.71, 0.608, 0.5], n_stimuli=20)
    a, b = (diff_sides.read(executed(tmp_path / f"{i}.ipynb", VALUES, {"t": t})) for i, t in enumerate((table, other)))
    rows = diff.compare(a, b).tables.set_index("column")
    # 0.6 and 0.608 lie within their spreads; 0.7 and 0.71 have none, and differ by more than a thousandth.
    assert rows.loc["value", ["rows", "same", "agree", "differ"]].tolist() == [3, 1, 1, 1]
    assert rows.loc["value", "where"] == "1-2, one"
    assert rows.loc["n_stimuli", "differ"] == 3
    fewer = diff_sides.read(executed(tmp_path / "c.ipynb", VALUES, {"t": table.iloc[:2]}))
    assert diff.compare(a, fewer).tables.unmatched.sum() == 1
    assert not diff.compare(a, fewer).reproduced


def test_a_table_whose_rows_differ_in_numbers_only_is_matched_by_those(tmp_path):
    table = pd.DataFrame({"alpha": [0.1, 0.2, 0.2], "value": [1.0, 2.0, 3.0]})
    sides = [diff_sides.read(executed(tmp_path / f"{i}.ipynb", VALUES, {"t": t})) for i, t in enumerate([table] * 2)]
    found = diff.compare(*sides)
    assert found.tables.differ.sum() == 0
    assert found.reproduced


@pytest.fixture
def _no_book(monkeypatch):
    """Whether or not a book was built in this checkout."""
    monkeypatch.setattr(diff_sides, "of_book", lambda side: None)


@pytest.mark.usefixtures("_no_book")
def test_a_run_alone_is_compared_with_the_published_tables(tmp_path, capsys):
    [title, *_] = published.load("depth_structure")
    table = published.load("depth_structure")[title]
    run = executed(tmp_path / "a.ipynb", VALUES, {"depth_structure": table, "mine": table}, images=title)
    assert main(["diff", str(run)]) == 0
    assert "published run on" in capsys.readouterr().out
    number = next(c for c in table if pd.api.types.is_float_dtype(table[c]) and table[c].abs().min() > 0)
    worse = executed(
        tmp_path / "b.ipynb", VALUES, {"depth_structure": table.assign(**{number: table[number] * 2})}, images=title
    )
    assert main(["diff", str(worse)]) == 1


def test_a_run_alone_is_compared_with_the_books_at_the_same_tier(tmp_path, capsys, monkeypatch):
    made = tmp_path / "_build" / "executed"
    made.mkdir(parents=True)
    executed(made / "04_depth-1.ipynb", VALUES | {"slope": 5.0}, tier="smoke")
    executed(made / "04_depth-2.ipynb", VALUES | {"n": 29})
    monkeypatch.setattr(diff_sides.paths, "data", lambda: tmp_path / "data")
    assert main(["diff", str(executed(tmp_path / "a.ipynb", VALUES))]) == 1
    assert "n  28 | 29" in " ".join(capsys.readouterr().out.split(" ")).replace("   ", "  ")


def test_the_command_tells_in_text_json_and_html_and_by_its_exit_code(tmp_path, capsys):
    a = executed(tmp_path / "a.ipynb", VALUES)
    b = executed(tmp_path / "b.ipynb", VALUES | {"slope": -0.08}, seeds=5)
    assert main(["diff", str(a), str(a)]) == 0
    assert "Reproduced: everything agrees." in capsys.readouterr().out
    assert main(["diff", str(a), str(b)]) == 1
    said = capsys.readouterr().out
    assert "differs: slope  -0.07 | -0.08  by -0.01, tolerance 8e-05" in said
    assert "DIFFERS: seeds=4 | seeds=5" in said
    assert main(["diff", str(a), str(b), "--json", "--html", str(tmp_path / "page.html")]) == 1
    [found] = json.loads(capsys.readouterr().out)
    assert found["reproduced"] is False
    assert [row["name"] for row in found["values"] if row["verdict"] == "differs"] == ["slope"]
    assert '<td class="differs">differs</td>' in (tmp_path / "page.html").read_text()
    assert main(["diff", str(a), str(b), "--tolerance", "slope", "0.02"]) == 0


@pytest.mark.parametrize(
    ("what", "told"), [("gone", "is no run"), ("text", "no executed"), ("source", "execute it first")]
)
def test_what_is_no_run_is_refused(tmp_path, capsys, what, told):
    (tmp_path / "text").write_text("text")
    (tmp_path / "source").write_text('{"cells": []}')
    assert main(["diff", str(tmp_path / what)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("_no_book")
def test_a_run_with_nothing_to_compare_with_says_so(tmp_path, capsys):
    assert main(["diff", str(executed(tmp_path / "a.ipynb", VALUES, images="holiday pictures"))]) == 2
    assert "Name a second run" in capsys.readouterr().err


def test_a_run_of_a_sweep_is_a_folder_with_its_own_provenance(tmp_path):
    executed(tmp_path / "notebook.ipynb", VALUES)
    about = {"library": "abc", "versions": {"torch": "2.14"}}
    (tmp_path / "provenance.json").write_text(json.dumps(about))
    side = diff_sides.read(tmp_path)
    assert (side.library, side.versions, side.chapter) == ("abc", {"torch": "2.14"}, "04_depth")
