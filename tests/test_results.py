"""Numbers, parameters, provenance, quizzes and interactive figures, as a notebook meets them."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from convergent import results

pytestmark = pytest.mark.smoke

PARAMETERS = (
    'tier: str = "laptop"  # smoke | laptop | full\nseeds: int = 4\nnoise: float = 0.5\nlayer: str | None = None'
)
CHECK = "from convergent import results\nresults.check_parameters(tier=results.TIERS, seeds=range(2, 65))"


@pytest.fixture(scope="module", autouse=True)
def shell(tmp_path_factory):
    """An IPython in this process, so that what a cell displays can be caught; it leaves no trace at home.

    Nor in the process: it takes the place of `__main__`, without which later tests can start no processes.
    """
    config, before = Config({"HistoryManager": {"hist_file": ":memory:"}}), sys.modules["__main__"]
    yield InteractiveShell.instance(config=config, ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    InteractiveShell.clear_instance()
    sys.modules["__main__"] = before


@pytest.fixture
def session(shell):
    """A fresh session: a function that runs cells and gives what the last one printed, or raises its error."""
    shell.reset(new_session=True)

    def run(*cells):
        for cell in cells:
            with capture_output() as captured:
                result = shell.run_cell(cell, store_history=True)
            result.raise_error()
        return captured.stdout

    return run


def displayed(function, *arguments, **options):
    with capture_output() as captured:
        function(*arguments, **options)
    return captured


def recorded(value, **options):
    """What `read_records` finds in a notebook whose only cell recorded `value`."""
    outputs = displayed(results.record, "x", value, **options).outputs
    cell = {"outputs": [{"data": output.data, "metadata": output.metadata} for output in outputs]}
    return results.read_records({"cells": [cell]})["x"]


# --- record ------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text() | st.booleans())
def test_a_recorded_value_comes_back_exactly(value):
    back = recorded(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.array([2.5]), 2.5),
        (torch.tensor(3), 3),
        (torch.tensor([[0.25]]), 0.25),
    ],
    ids=repr,
)
def test_one_number_of_numpy_or_torch_is_recorded_as_pythons(value, expected):
    assert recorded(value) == expected
    assert type(recorded(value)) is type(expected)


def test_myst_nb_formats_a_recorded_number_in_prose():
    from myst_nb.core.variables import format_plain_text
    from myst_nb.ext.glue import extract_glue_data_cell
    from nbformat import from_dict

    outputs = displayed(results.record, "unit_17_r", np.float64(-0.0314159)).outputs
    cell = from_dict({"outputs": [{"data": outputs[0].data, "metadata": outputs[0].metadata}]})
    [(name, output)] = extract_glue_data_cell(cell)
    assert name == "unit_17_r"
    assert format_plain_text(output["data"]["text/plain"], ".2f") == "-0.03"
    assert cell.outputs == [], "the stored number must not show beside the printed line"


def test_record_prints_one_line_unless_it_is_told_not_to():
    assert displayed(results.record, "r", 1 / 3).stdout == "r = 0.3333\n"
    assert displayed(results.record, "r", 12345, "images").stdout == "images = 12345\n"
    assert displayed(results.record, "r", 1 / 3, show=False).stdout == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), torch.tensor(float("nan"))])
def test_a_number_that_is_not_finite_is_refused_by_name(value):
    with pytest.raises(ValueError, match="'gain' is .*only finite"):
        results.record("gain", value)


@pytest.mark.parametrize("value", [None, [1, 2], np.arange(3), 1j, {"a": 1}])
def test_what_is_not_one_number_is_refused(value):
    with pytest.raises(TypeError, match="one number or one string"):
        results.record("x", value)


@pytest.mark.parametrize("name", ["", "two words", "a:b", "7th", "x`"])
def test_a_name_that_prose_could_not_read_is_refused(name):
    with pytest.raises(ValueError, match="a name is"):
        results.record(name, 1)


# --- parameters --------------------------------------------------------------------------------------


def test_good_parameters_pass_and_are_told_in_one_line(session):
    assert session(PARAMETERS, CHECK) == "tier=laptop, seeds=4, noise=0.5, layer=None\n"


@pytest.mark.parametrize("injected", ["noise = 1", "layer = 'conv3'", "layer = None", "tier = 'smoke'\nseeds = 2"])
def test_values_that_papermill_passes_are_accepted_where_types_allow(session, injected):
    assert session(PARAMETERS, f"# Parameters\n{injected}\n", CHECK)


@pytest.mark.parametrize(
    ("injected", "error", "message"),
    [
        ("seed = 4", ValueError, "unknown parameter 'seed'. Did you mean 'seeds'?"),
        ("colour = 4", ValueError, "unknown parameter 'colour'. Parameters: tier, seeds, noise, layer"),
        ("seeds = 'many'", TypeError, "'seeds' is declared int but is 'many', of type str"),
        ("seeds = 4.0", TypeError, "'seeds' is declared int but is 4.0"),
        ("seeds = True", TypeError, "'seeds' is declared int but is True"),
        ("noise = True", TypeError, "'noise' is declared float but is True"),
        ("layer = 3", TypeError, "'layer' is declared str | None but is 3"),
        ("tier = None", TypeError, "'tier' is declared str but is None"),
        ("tier = 'labtop'", ValueError, "must be one of smoke, laptop, full. Did you mean 'laptop'?"),
        ("seeds = 1", ValueError, "seeds = 1: must lie between 2 and 64"),
    ],
)
def test_a_parameter_that_papermill_passes_wrongly_is_refused(session, injected, error, message):
    with pytest.raises(error, match=re.escape(message)):
        session(PARAMETERS, f"# Parameters\n{injected}\n", CHECK)


def test_a_function_can_say_what_is_allowed(session):
    with pytest.raises(ValueError, match="noise = 0.5 is not allowed here"):
        session(PARAMETERS, "from convergent import results\nresults.check_parameters(noise=lambda n: n > 1)")
    with pytest.raises(KeyError, match="no such layer"):
        session("def known(name):\n    raise KeyError('no such layer')", "results.check_parameters(layer=known)")


def test_what_a_chapter_allows_for_a_parameter_it_lacks_is_an_error(session):
    with pytest.raises(ValueError, match="unknown parameter 'teir'. Did you mean 'tier'"):
        session(PARAMETERS, "from convergent import results\nresults.check_parameters(teir=results.TIERS)")


def test_a_live_session_may_go_on_with_other_variables_and_check_again(session):
    session(PARAMETERS, CHECK, "seed = 3\nnoise = 0.25", "total: int = 5")
    assert session(CHECK) == "tier=laptop, seeds=4, noise=0.25, layer=None\n"


def test_the_last_version_of_an_edited_parameters_cell_counts(session):
    session(PARAMETERS, "# Parameters\nseeds = 8\n", CHECK)
    assert session("tier: str = 'smoke'\nseeds: int = 3\ndepth: int = 2", CHECK) == "tier=smoke, seeds=3, depth=2\n"
    with pytest.raises(TypeError, match="seeds"):
        session("tier: str = 'smoke'\nseeds: int = '3'", CHECK)


def test_a_cell_that_was_mistyped_does_not_stand_in_the_way(session, shell):
    session(PARAMETERS)
    with capture_output():
        shell.run_cell("seeds: int = = 5", store_history=True)
    assert session(CHECK).startswith("tier=laptop, seeds=4")


def test_checking_before_the_parameters_cell_says_what_to_run(session):
    with pytest.raises(ValueError, match="run the cell of annotated assignments"):
        session(CHECK)


def test_a_type_that_papermill_cannot_pass_is_refused_in_the_declaration(session):
    with pytest.raises(TypeError, match=re.escape("'sizes' is declared list[int]: use int, float, str, bool")):
        session("sizes: list[int] = [1]", "from convergent import results\nresults.check_parameters()")


# --- provenance --------------------------------------------------------------------------------------


def test_the_stamp_names_data_seed_machine_and_a_command_that_repeats_the_page(session):
    session(PARAMETERS, "# Parameters\nlayer = 'conv 3'\n", CHECK)
    dataset = SimpleNamespace(title="cave", hash="0123456789abcdef")
    told = results.provenance("01_representations", dataset, seed=3)
    assert told["data"] == "cave, SHA-256 0123456789ab"
    assert told["seed"] == "3"
    assert f"torch {torch.__version__}" in told["software"]
    assert told["repeat"] == (
        "papermill notebooks/01_representations.ipynb 01_representations-again.ipynb "
        "-p tier laptop -p seeds 4 -p noise 0.5 -p layer 'conv 3'"
    )
    [output] = displayed(results.stamp, "01_representations", dataset, seed=3).outputs
    assert output.metadata["provenance"]["data"] == told["data"]


def test_code_that_is_no_checkout_is_stamped_with_its_version(monkeypatch, tmp_path):
    monkeypatch.setattr(results.paths, "data", lambda: tmp_path / "data")
    assert results.provenance("x")["code"] == f"convergent {results.__version__}"


# --- quizzes and interactive figures -----------------------------------------------------------------


def quiz_html(question="Which?"):
    captured = displayed(
        results.quiz,
        question,
        right=("a < b, $x_1$", "Since `a` is *less*."),
        wrong=[("b", "No: see $y$."), ("c", "No."), ("d", "No.")],
    )
    return captured.outputs[0].data["text/html"]


def test_a_quiz_marks_one_answer_right_and_gives_feedback_on_each():
    page = quiz_html()
    assert len(re.findall(r'<details class="wrong"', page)) == 3
    [right] = re.findall(r'<details class="right".*?</details>', page)
    assert r"a &lt; b, \(x_1\)" in right
    assert "<strong>Right.</strong> Since <code>a</code> is <em>less</em>." in right


def test_a_quiz_shows_its_answers_in_one_order_at_every_run_but_not_always_the_right_one_first():
    assert quiz_html() == quiz_html()
    orders = [re.findall(r'<details class="(\w+)"', quiz_html(f"Question {n}?")) for n in range(12)]
    assert len({order.index("right") for order in orders}) > 1


def test_an_interactive_figure_in_the_book_carries_its_drawing_and_its_words(monkeypatch):
    monkeypatch.setenv("CONVERGENT_BOOK", "1")
    figure = go.Figure(go.Scatter3d(x=[1], y=[2], z=[3], name="</script>"))
    page = displayed(results.interactive, figure, alt='A "cloud"').outputs[0].data["text/html"]
    assert 'aria-label="A &quot;cloud&quot;"' in page
    assert page.count("</script>") == 1, "text in the figure must not end its script"
    assert figure.layout.paper_bgcolor is None, "the author's figure must stay as it was"


def test_an_interactive_figure_outside_the_book_is_plotlys_own(monkeypatch):
    monkeypatch.delenv("CONVERGENT_BOOK", raising=False)
    shown = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    results.interactive(go.Figure(go.Scatter(y=[1])), alt="A point.")
    assert len(shown) == 1
    assert shown[0].layout.paper_bgcolor == "rgba(0,0,0,0)"
