"""Every chapter runs, says where its numbers came from, and refuses what it cannot run with before it starts."""

import io
import json

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from safetensors.torch import save_file

from conftest import ROOT
from convergent import images, networks, representations
from convergent.results import read_records


def outputs(notebook):
    return [(cell, output) for cell in notebook.cells for output in cell.get("outputs", [])]


def test_every_cell_runs_at_smoke_and_numbers_are_recorded(execute_at_smoke, notebook):
    executed = execute_at_smoke(notebook)
    cells = nbformat.read(executed, 4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    assert read_records(executed)


def test_no_cell_writes_a_warning_into_the_page(execute_at_smoke, builder, notebook):
    executed = nbformat.read(execute_at_smoke(notebook), 4)
    builder.drop_progress_bars(executed)
    written = [
        f"{cell.source.splitlines()[0]} ... says: {output.text}"
        for cell, output in outputs(executed)
        if output.get("name") == "stderr"
    ]
    assert not written, "\n".join(written)


def test_every_number_that_the_prose_reads_is_recorded(execute_at_smoke, builder, notebook):
    assert builder.missing_records(nbformat.read(execute_at_smoke(notebook), 4)) == []


def test_every_solution_gives_a_right_answer(execute_at_smoke, chapter):
    said = "".join(o.text for _, o in outputs(nbformat.read(execute_at_smoke(chapter), 4)) if o.get("name") == "stdout")
    assert "✓" in said, "no exercise was checked"
    assert "✗" not in said, said


def test_it_ends_with_a_stamp_whose_command_repeats_it(execute_at_smoke, notebook):
    *_, (_, last) = outputs(nbformat.read(execute_at_smoke(notebook), 4))
    told = last.metadata.provenance
    assert told.repeat.startswith(f"papermill notebooks/{notebook.name} ")
    for name in papermill.inspect_notebook(notebook):
        assert f"-p {name} " in told.repeat
    assert "-p tier smoke" in told.repeat


def test_papermill_explains_every_parameter(notebook):
    [cell] = [cell for cell in nbformat.read(notebook, 4).cells if "parameters" in cell.metadata.get("tags", [])]
    explained = papermill.inspect_notebook(notebook)
    # papermill leaves out a line with a second "=", be it in the comment.
    assert list(explained) == [line.split(":")[0] for line in cell.source.splitlines()]
    for parameter in explained.values():
        assert parameter["inferred_type_name"] not in (None, "None"), f"{parameter['name']} has no type"
        assert parameter["help"], f"{parameter['name']} has no comment"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"teir": "smoke"}, "unknown parameter 'teir'. Did you mean 'tier'?"),
        ({"tier": True}, "parameter 'tier' is declared str but is True"),
        ({"tier": "smok"}, "parameter tier = 'smok': must be one of smoke, laptop, full. Did you mean 'smoke'?"),
    ],
    ids=["unknown", "ill-typed", "unknown tier"],
)
def test_a_wrong_parameter_stops_it_before_any_work(builder, tmp_path, notebook, parameters, message):
    with pytest.raises(builder.BuildError) as failure:
        builder.execute(notebook.parents[1], notebook, tmp_path, parameters)
    assert message in str(failure.value)
    cells = nbformat.read(tmp_path / f"{notebook.stem}.failed.ipynb", 4).cells
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source]
    [failed] = [i for i, cell in enumerate(code) if any(o.output_type == "error" for o in cell.outputs)]
    assert "check_parameters(" in code[failed].source
    before = json.dumps([cell.source for cell in code[:failed]])
    assert "convergent.zoo" not in before, "work must wait for the check"
    assert not any(cell.execution_count for cell in code[failed + 1 :])


@pytest.mark.parametrize("stem", ["04_depth", "05_layer_correspondence"])
def test_chapters_4_and_5_run_on_networks_of_other_packages(builder, tmp_path, stem):
    """One network of each architecture, as somebody has them who downloads two; the weights are random here."""
    weights = tmp_path / "own.safetensors"
    save_file(networks.load("torchvision:squeezenet1_1?weights=random", seed=3).state_dict(), weights)
    named = f"torchvision:squeezenet1_1?weights={weights},torchvision:mobilenet_v3_small?weights=random"
    notebook = ROOT / "notebooks" / f"{stem}.ipynb"
    executed = builder.execute(ROOT, notebook, tmp_path, {"tier": "smoke", "networks": named})
    assert builder.missing_records(nbformat.read(executed, 4)) == []
    assert read_records(executed)["main"] == "torchvision:squeezenet1_1 x torchvision:mobilenet_v3_small"


@pytest.fixture
def activations(tmp_path):
    """Names of three files of activations, each of one network on the same images."""
    shown = images.load("cave").test[:200:2]
    for seed in range(3):
        network = networks.load("cnn6", width=0.25, seed=seed)
        layers = representations.extract(network, shown.images, spatial="pool")
        np.savez(tmp_path / f"{seed}.npz", labels=shown.labels, image_ids=np.arange(0, 200, 2), **layers)
    return ",".join(f"activations:{tmp_path / f'{seed}.npz'}" for seed in range(3))


@pytest.mark.parametrize("stem", ["02_metrics", "04_depth", "05_layer_correspondence"])
def test_chapters_2_4_and_5_run_on_activations_alone(builder, tmp_path, activations, stem):
    notebook = ROOT / "notebooks" / f"{stem}.ipynb"
    executed = builder.execute(ROOT, notebook, tmp_path, {"tier": "smoke", "networks": activations})
    assert read_records(executed)["n_pairs"] == 3
    *_, (_, last) = outputs(nbformat.read(executed, 4))
    assert last.metadata.provenance.data.startswith("activations of 0, 1, 2, SHA-256")


@pytest.mark.parametrize(
    ("stem", "says"),
    [
        ("03_chance_and_certainty", "activations cannot be shown any"),
        ("06_training", "Weights and activations have no past"),
        ("07_distribution_shift", "activations cannot be shown any"),
    ],
)
def test_a_chapter_that_cannot_take_activations_says_why_before_any_work(builder, tmp_path, activations, stem, says):
    notebook = ROOT / "notebooks" / f"{stem}.ipynb"
    with pytest.raises(builder.BuildError, match=says):
        builder.execute(ROOT, notebook, tmp_path, {"tier": "smoke", "networks": activations})


def test_the_former_name_of_a_parameter_is_answered_with_its_present_one(builder, tmp_path):
    for stem, former in (("04_depth", "models"), ("07_distribution_shift", "architecture")):
        with pytest.raises(builder.BuildError, match=f"unknown parameter '{former}'. It is called 'networks' now"):
            builder.execute(ROOT, ROOT / "notebooks" / f"{stem}.ipynb", tmp_path, {former: "cnn6"})


def test_chapter_7_holds_a_shift_of_ones_own_against_its_own_originals(builder, tmp_path):
    shown = images.load("cave").test[:100]
    np.savez(tmp_path / "fog.npz", original=shown.images, shifted=shown.images // 2 + 110, labels=shown.labels)
    notebook = ROOT / "notebooks" / "07_distribution_shift.ipynb"
    parameters = {"tier": "smoke", "own_shifts": str(tmp_path / "fog.npz")}
    table = read_records(builder.execute(ROOT, notebook, tmp_path, parameters))["table_shift"]
    rows = pd.read_csv(io.StringIO(table)).groupby("shift").first()
    assert "fog" in rows.index
    assert "fog, original" not in rows.index
    assert rows.pixels["fog"] > 20
