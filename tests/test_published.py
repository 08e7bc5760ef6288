import json
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from convergent import paths, published

smoke = pytest.mark.smoke
DATA = SimpleNamespace(title="CIFAR-10 (JPEG copy)", hash="0123456789abcdef" * 4)
TABLE = pd.DataFrame(
    {"layer": ["layer1", "layer2"], "condition": ["best partner"] * 2, "value": [1 / 3, -2e-7], "n": [1, 2]}
)

CELLS = [
    "from types import SimpleNamespace\nimport pandas as pd\nfrom convergent import published, results",
    f"table = pd.DataFrame({TABLE.to_dict('list')})",
    "published.keep('depth', table); published.keep('other_table', table.head(1))",
    f"results.stamp('01_test', SimpleNamespace(title={DATA.title!r}, hash={DATA.hash!r}), seed=3)",
]


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "data", lambda: tmp_path / "data")
    monkeypatch.delenv("CONVERGENT_PUBLISHING", raising=False)


def executed(folder, cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, kernel_name="python3").execute()
    nbformat.write(notebook, folder / "run.ipynb")
    return folder / "run.ipynb"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A notebook that a kernel has executed."""
    return executed(tmp_path_factory.mktemp("run"), CELLS)


@pytest.fixture
def folder(run):
    published.publish(run, paths.data() / "published")
    return paths.data() / "published"


@smoke
def test_a_kept_table_comes_back_from_its_publication(folder):
    assert list(published.load("depth")) == [DATA.title]
    found = published.load("depth")[DATA.title]
    assert list(found.columns) == list(TABLE.columns)
    assert found.layer.tolist() == TABLE.layer.tolist()
    np.testing.assert_allclose(found.value, TABLE.value, rtol=1e-5)
    assert found.n.tolist() == [1, 2]
    assert len(published.load("other_table")[DATA.title]) == 1
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{e}" for n in ("depth", "other_table") for e in ("csv", "json")
    }


@smoke
def test_a_published_table_says_where_it_came_from(folder):
    about = published.load("depth")[DATA.title].attrs
    assert about["data"] == f"{DATA.title}, SHA-256 {DATA.hash[:12]}"
    assert about["seed"] == "3"
    assert about["repeat"].startswith("papermill notebooks/01_test.ipynb")


@smoke
def test_publishing_names_the_tables_and_does_so_twice_to_the_byte(run, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert published.publish(run, folder) == ["depth", "other_table"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert all(b"\r" not in content for content in before.values())


@smoke
def test_a_table_holds_the_runs_on_several_image_sets_and_only_its_own_is_replaced(run, tmp_path, monkeypatch):
    def of(title, value):
        notebook = json.loads(run.read_text().replace(DATA.title, title).replace("0.333333", value))
        (tmp_path / "other.ipynb").write_text(json.dumps(notebook))
        published.publish(tmp_path / "other.ipynb", tmp_path / "data" / "published")

    of("B", "0.25"), of("C", "0.5"), of("B", "0.75")
    found = published.load("depth")
    values = {title: table.value[0] for title, table in found.items()}
    assert list(values.items()) == [("B", 0.75), ("C", 0.5)], "in the order of their titles, whichever was made last"
    assert [table.attrs["data"].split(",")[0] for table in found.values()] == list(found)
    monkeypatch.setattr(published, "keep", lambda name, table: None)
    both = published.beside("The cave", TABLE, "depth")
    assert list(both) == ["this run: The cave", "published: B", "published: C"]
    assert list(published.others(both)) == ["B", "C"]
    monkeypatch.setenv("CONVERGENT_PUBLISHING", "1")
    alone = published.beside("The cave", TABLE, "depth")
    assert published.others(alone) == alone


@smoke
def test_where_a_table_came_from_is_said_anew_only_when_it_changes(tmp_path):
    path, told = tmp_path / "mine.csv", tmp_path / "mine.json"

    def write(text):
        with published.said_where_from(path, "Mine", "python -m mine"):
            if text:
                path.write_text(text)

    write("")
    assert not told.exists(), "there is no table"
    write("a\n1\n")
    said = json.loads(told.read_text())
    assert said["provenance"]["repeat"] == "python -m mine"
    assert "date" in said["provenance"]
    told.write_text("as it was")
    write("")
    write("a\n1\n")
    assert told.read_text() == "as it was"
    write("a\n2\n")
    assert json.loads(told.read_text())["title"] == "Mine"


def test_keeping_a_table_shows_nothing_to_the_reader(run):
    outputs = json.loads(run.read_text())["cells"][2]["outputs"]
    assert len(outputs) == 2
    assert all(kind.startswith("application/papermill.record") for output in outputs for kind in output["data"])


@smoke
def test_an_unknown_table_is_answered_with_those_that_exist(folder):
    with pytest.raises(FileNotFoundError, match="no published table 'dpeth'; there are: depth, other_table"):
        published.load("dpeth")


def without(run, tmp_path, unwanted):
    """The executed notebook without the outputs whose JSON says `unwanted`."""
    notebook = json.loads(run.read_text())
    for cell in notebook["cells"]:
        cell["outputs"] = [output for output in cell["outputs"] if not re.search(unwanted, json.dumps(output))]
    (tmp_path / "part.ipynb").write_text(json.dumps(notebook))
    return tmp_path / "part.ipynb"


@smoke
@pytest.mark.parametrize(
    ("unwanted", "says"),
    [("scrapbook", "holds 0 tables and 1 stamps"), ("provenance", "holds 2 tables and 0 stamps")],
    ids=["no tables", "no stamp"],
)
def test_a_notebook_that_was_not_run_to_its_stamp_is_refused(run, tmp_path, unwanted, says):
    with pytest.raises(ValueError, match=f"{says}.*run it to the end first"):
        published.publish(without(run, tmp_path, unwanted), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@smoke
def test_a_stamp_that_does_not_name_the_images_is_refused(run, tmp_path):
    notebook = json.loads(run.read_text())
    [stamp] = [o for cell in notebook["cells"] for o in cell["outputs"] if "provenance" in o.get("metadata", {})]
    del stamp["metadata"]["provenance"]["data"]
    (tmp_path / "unnamed.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match="0 stamps that name the images"):
        published.publish(tmp_path / "unnamed.ipynb", tmp_path / "out")


@smoke
def test_the_readers_run_stands_beside_the_published_one(folder, monkeypatch):
    kept = []
    monkeypatch.setattr(published, "keep", lambda name, table: kept.append((name, table)))
    mine = TABLE.assign(value=0.0)
    both = published.beside("The cave", mine, "depth")
    assert list(both) == ["this run: The cave", f"published: {DATA.title}"]
    assert both["this run: The cave"] is mine
    assert both[f"published: {DATA.title}"].value[0] == pytest.approx(1 / 3, rel=1e-5)
    assert kept == [("depth", mine)]


@smoke
def test_a_run_that_is_being_published_stands_alone(monkeypatch):
    monkeypatch.setenv("CONVERGENT_PUBLISHING", "1")
    monkeypatch.setattr(published, "keep", lambda name, table: None)
    assert list(published.beside("The cave", TABLE, "never published")) == ["The cave"]
