import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from convergent import (
    achieved,
    causal,
    causal_plans,
    causal_sweep,
    gabor,
    networks,
    oracles,
    push,
    representations,
    responses,
    tasks,
    training,
)
from convergent.causal import Condition, Setting
from convergent.training import Recipe, Step
from tiny import assert_same_weights, dataset

smoke = pytest.mark.smoke
RECIPE = Recipe(2, 16, "adam", 0.01, weight_decay=0.0, crop=0, flip=False)
FIRST = ("gabor", "layer1")


@pytest.fixture
def setting(monkeypatch):
    """Tiny images in place of any image set: 96 for training, 48 for tests, of 16 x 16 pixels."""
    monkeypatch.setattr(causal.images, "load", lambda *args: dataset())
    return Setting("tiny", "cnn6", 0.2, RECIPE, 96, 48, 48, 16)


def voxels(n=96, n_voxels=5, seed=0, **options):
    rng = np.random.default_rng(seed)
    test = responses.Responses(rng.standard_normal((48, n_voxels)))
    return responses.Responses(rng.standard_normal((n, n_voxels)), test=test, **options)


def trained(setting, alpha, ref=None, layer="layer1", **options):
    return causal.train(Condition("gabor", layer, alpha), setting, ref or gabor.GaborBank(16), **options)


# --- the push ----------------------------------------------------------------------------------------


def one_step(layer, ref, alpha=1.0, metric="linear", **options):
    """(gradients of all weights that the push alone gives, its value, layer's output) on 16 images in float32."""
    data = dataset()
    network = networks.load("cnn6", 3, 0.2, seed=0).train()
    pushed = push.Push(network, layer, ref, alpha, metric, **options)
    images = data.train.images[:16]
    with pushed.listening():
        logits = network(images)
        value = pushed(network, images, logits, data.train.labels[:16], Step(0, torch.arange(16)))
        value.backward()
    return {name: p.grad for name, p in network.named_parameters()}, value.item()


@smoke
def test_the_push_gives_the_gradient_of_alpha_times_the_negative_alignment():
    bank = gabor.GaborBank(16)
    gradients, value = one_step("layer2", bank, alpha=-2.0)
    data, network = dataset(), networks.load("cnn6", 3, 0.2, seed=0).train()
    z = network.layer2(network.layer1(network.normalise(data.train.images[:16])))
    X, Y, positions = oracles.compared(z, bank, data.train.images[:16], None, (0, 0), push.POSITIONS)
    direct = -2.0 * push.alignment_loss.loss(X, Y, positions=positions)
    direct.backward()
    assert value == pytest.approx(direct.item(), abs=1e-6)
    for name in ("layer1.0.weight", "layer2.0.weight"):
        expected = dict(network.named_parameters())[name].grad
        assert torch.allclose(gradients[name], expected, atol=1e-5 * float(expected.abs().max()) + 1e-9)
    assert gradients["layer3.1.weight"] is None, "layers after the pushed one feel nothing of it"


@smoke
@pytest.mark.parametrize("metric", push.alignment_loss.METRICS)
@pytest.mark.parametrize("layer", ["layer1", "layer6"])
def test_every_metric_pushes_towards_responses_without_places(metric, layer):
    gradients, value = one_step(layer, voxels(), metric=metric)
    assert np.isfinite(value)
    assert float(gradients[f"{layer}.0.weight"].abs().max()) > 0


@smoke
def test_a_gradient_is_given_the_norm_that_is_asked_for():
    ledgers = [push.Ledger(1) for _ in range(2)]
    one_step("layer1", gabor.GaborBank(16), ledger=ledgers[0])
    gradients = [one_step("layer1", gabor.GaborBank(16), norms=np.array([n]), ledger=ledgers[1])[0] for n in (1.0, 3.0)]
    assert ledgers[0].rows[0, 1] > 0
    assert ledgers[1].rows[0, 1] == pytest.approx(3, rel=1e-4)
    assert torch.allclose(3 * gradients[0]["layer1.0.weight"], gradients[1]["layer1.0.weight"], rtol=1e-3, atol=1e-6)


@smoke
def test_a_shuffled_reference_pairs_every_image_with_another_one():
    pushed = push.Push(networks.load("cnn6", 3, 0.2), "layer1", gabor.GaborBank(16), 1.0, shuffled=True)
    rows = torch.arange(12)[:, None]
    moved = pushed._paired(rows, 3).view(4, 3)
    assert ((moved // 3) != torch.arange(4)[:, None]).all()
    assert sorted(moved.flatten().tolist()) == list(range(12))


@smoke
def test_the_tasks_share_is_one_where_the_push_is_weak_and_small_where_it_is_strong(setting):
    shares = [trained(setting, alpha)[1]["task_share"] for alpha in (1e-4, 1e4)]
    assert shares[0] == pytest.approx(1, abs=0.02)
    assert shares[1] < 0.05


@smoke
def test_a_layer_before_an_in_place_relu_is_pushed_as_it_is():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(inplace=True)).train()
    images, ledger = dataset().train.images[:16].float() / 255, push.Ledger(1)
    pushed = push.Push(network, "0", gabor.GaborBank(16), 1.0, ledger=ledger)
    with pushed.listening():
        logits = network(images).mean((2, 3))
        (logits.square().sum() + pushed(network, images, logits, None, Step(0, torch.arange(16)))).backward()
    X, Y, positions = oracles.compared(network[0](images), gabor.GaborBank(16), images, None, (0, 0), push.POSITIONS)
    assert ledger.rows[0, 0] == pytest.approx(push.alignment_loss.alignment(X, Y, positions=positions).item(), abs=1e-5)
    assert 0 < ledger.rows[0, 2] <= 1.1


@smoke
def test_stimuli_of_a_references_own_are_seen_as_in_validation_and_leave_the_running_averages_to_the_task():
    data, network = dataset(), networks.load("cnn6", 3, 0.2, seed=0).train()
    own = responses.Responses(np.random.default_rng(0).standard_normal((96, 4)), images=dataset(seed=5).train.images)
    ledger = push.Ledger(1)
    pushed = push.Push(network, "layer6", own, 1.0, ledger=ledger)
    logits = network(data.train.images[:16])
    before = network.layer1[1].running_mean.clone()
    with pushed.listening():
        pushed(network, data.train.images[:16], logits, None, Step(0, torch.arange(16))).backward()
    assert torch.equal(before, network.layer1[1].running_mean)
    assert network.layer1[1].training
    which = pushed._stimuli(96, 16, 0)
    with representations.recording(network.eval(), ["layer6"]) as outputs, torch.no_grad():
        network(own.images[which])
    X, Y, positions = oracles.compared(outputs["layer6"], own, own.images[which], which, (0, 0), push.POSITIONS)
    expected = push.alignment_loss.alignment(X, Y, positions=positions).item()
    assert ledger.rows[0, 0] == pytest.approx(expected, abs=1e-4)


# --- runs --------------------------------------------------------------------------------------------


def test_alignment_rises_with_alpha_and_falls_below_the_task_alone_without_silencing_the_layer(setting):
    setting = replace(setting, recipe=replace(RECIPE, epochs=12))
    rows = {alpha: trained(setting, alpha)[1] for alpha in (-5.0, 0.0, 5.0)}
    found = [rows[alpha]["pearson"] for alpha in rows]
    assert found[0] < found[1] - 0.05
    assert found[2] > found[1] + 0.05
    assert all(row["dead"] < 0.5 and row["norm"] > 0 and row["dimension"] >= 1 for row in rows.values())


@smoke
def test_alpha_zero_is_training_without_a_push(setting):
    network, row = trained(setting, 0.0)
    plain = networks.load("cnn6", 3, 0.2, seed=0)
    training.train(plain, setting.data, RECIPE, 0, progress=False)
    assert_same_weights(network.state_dict(), plain.state_dict())
    assert "task_share" not in row


@smoke
def test_without_beta_the_task_is_not_learned_and_the_head_stays(setting):
    condition = Condition(*FIRST, 1.0, beta=0.0)
    network, _ = causal.train(condition, setting, gabor.GaborBank(16))
    assert torch.equal(network.head.weight, networks.load("cnn6", 3, 0.2, seed=0).head.weight)


@smoke
def test_a_shuffled_control_makes_as_many_steps_with_the_same_norms(setting, tmp_path):
    _, row = trained(setting, 2.0, folder=tmp_path)
    control = Condition(*FIRST, 2.0, control="shuffled")
    causal.train(control, setting, gabor.GaborBank(16), tmp_path, row)
    both = [push.Ledger(setting.n_steps, tmp_path / f"{name}-2-0.npy").rows for name in ("none", "shuffled")]
    assert np.isfinite(both[0][:, :2]).all()
    assert both[1][:, 1] == pytest.approx(both[0][:, 1], rel=1e-3)
    assert (both[0][:, 0] != both[1][:, 0]).all()


@smoke
def test_a_step_size_control_slows_the_layers_up_to_the_pushed_one(setting, tmp_path):
    control = Condition("gabor", "layer2", 2.0, control="step size")
    network, _ = causal.train(control, setting, gabor.GaborBank(16), tmp_path, {"task_share": 1e-9})
    start = networks.load("cnn6", 3, 0.2, seed=0)
    for name, moves in (("layer1", False), ("layer2", False), ("layer3", True)):
        was, now = (n.get_submodule(name)[-3].weight for n in (start, network))
        assert torch.allclose(was, now, atol=1e-6) != moves, name


@smoke
def test_what_cannot_be_run_is_refused_before_any_step(setting):
    with pytest.raises(ValueError, match="shifts or mirrors"):
        causal.train(Condition("v", "layer1", 1.0), replace(setting, recipe=replace(RECIPE, flip=True)), voxels())
    with pytest.raises(ValueError, match="95 stimuli and 96 training images"):
        causal.train(Condition("v", "layer1", 1.0), setting, voxels(95))
    with pytest.raises(ValueError, match="no responses to the test images"):
        causal.train(Condition("v", "layer1", 1.0), setting, responses.Responses(voxels().voxels))
    with pytest.raises(ValueError, match="needs the row and the folder of the run that it controls"):
        causal.train(Condition(*FIRST, 1.0, control="shuffled"), setting, gabor.GaborBank(16))
    with pytest.raises(ValueError, match="layer 'layer9' is not in this network"):
        trained(setting, 1.0, layer="layer9")
    with pytest.raises(ValueError, match="nothing to control for"):
        Condition(*FIRST, 0.0, control="shuffled")
    with pytest.raises(ValueError, match="reference 'gabour' is not gabor"):
        causal.reference("gabour", setting, "layer1")


@smoke
def test_stimuli_that_a_reference_brings_are_shown_four_of_five_and_validated_on_the_fifth(setting):
    shown, held_out = oracles.shown_and_held_out(23)
    assert sorted([*shown, *held_out]) == list(range(23))
    assert len(held_out) == 4
    photographs = dataset(seed=5).train.images
    own = responses.Responses(np.random.default_rng(0).standard_normal((96, 4)), images=photographs)
    seen = []
    own.__class__ = type("Noting", (responses.Responses,), {"__call__": _noting(seen)})
    causal.train(Condition("own", "layer1", 1.0), replace(setting, recipe=replace(RECIPE, epochs=1)), own)
    assert {n % 5 for n in np.concatenate(seen[:6])} == {0, 1, 2, 3}, "in training"
    assert {n % 5 for n in seen[-1]} == {4}, "in validation"


def _noting(seen):
    def call(self, images, which=None, shape=None):
        seen.append(which.numpy())
        return responses.Responses.__call__(self, images, which, shape)

    return call


@smoke
def test_dissimilarities_push_with_the_metric_rsa_alone(setting):
    matrix = np.corrcoef(np.random.default_rng(0).standard_normal((96, 20)))
    own = responses.Dissimilarities(1 - matrix, dataset(seed=5).train.images)
    with pytest.raises(ValueError, match="compared by metric 'rsa', not 'linear'"):
        causal.train(Condition("it", "layer6", 1.0), setting, own)
    _, row = causal.train(Condition("it", "layer6", 1.0, metric="rsa"), setting, own)
    assert -1 <= row["alignment"] <= 1


@smoke
def test_a_silent_layer_has_alignment_zero_and_is_dead(setting):
    network = networks.load("cnn6", 3, 0.2, seed=0)
    torch.nn.init.zeros_(network.layer1[1].weight)
    torch.nn.init.constant_(network.layer1[1].bias, -1)
    found = achieved.look(network, "layer1", gabor.GaborBank(16), setting.data.test.images)
    assert (found["alignment"], found["dead"], found["norm"]) == (0, 1, 0)


# --- sweeps ------------------------------------------------------------------------------------------


@smoke
def test_a_reference_with_stimuli_of_its_own_is_swept_with_the_controls_that_it_allows(setting, tmp_path):
    path, voxels = tmp_path / "mine.npz", np.random.default_rng(0).standard_normal((96, 4))
    np.savez(path, voxels=voxels, images=dataset(seed=5).train.images.numpy())
    own, short = f"npz:{path}", replace(setting, recipe=replace(RECIPE, epochs=1))
    controls = causal_sweep.controls_of(causal.reference(own, short, "layer1"))
    assert controls == ("shuffled",)
    assert causal_sweep.controls_of(gabor.GaborBank(16)) == ("shuffled", "step size")
    runs = causal_sweep.conditions({(own, "layer1"): (-1.0, 1.0)}, range(1), controls=controls)
    table = causal_sweep.sweep(runs, short, tmp_path / "kept", progress=False)
    assert table.control.tolist() == ["none", "none", "shuffled", "shuffled"]
    assert table[["alignment", "accuracy"]].notna().all(axis=None)


PUSHES = {FIRST: (-1.0, 0.0, 1.0), ("voxels", "layer6"): (0.0, 1.0)}


@pytest.fixture
def voxels_by_name(monkeypatch):
    named = causal.reference
    monkeypatch.setattr(causal, "reference", lambda name, *args: voxels() if name == "voxels" else named(name, *args))


@smoke
def test_a_sweep_trains_each_run_once_and_the_task_alone_once_for_all_references(
    setting, voxels_by_name, tmp_path, monkeypatch
):
    runs, calls, original = causal_sweep.conditions(PUSHES, range(1)), [], training.train
    monkeypatch.setattr(training, "train", lambda *args, **options: calls.append(0) or original(*args, **options))
    table = causal_sweep.sweep(runs, setting, tmp_path, progress=False)
    # Three and one pushes, the task alone, and two controls of each of the three strongest pushes either way.
    assert len(calls) == 4 - 1 + 1 + 2 * 3
    assert len(table) == len(runs) == 5 + 6
    alone = table[table.alpha == 0]
    assert alone.accuracy.nunique() == 1
    assert alone.alignment.nunique() == 2
    again = causal_sweep.sweep(runs, setting, tmp_path, progress=False)
    assert len(calls) == 10
    pd.testing.assert_frame_equal(table, again)
    kept = causal_sweep.network_of(runs[0], setting, tmp_path)
    assert training.accuracy(kept, setting.data.test) == pytest.approx(table.accuracy[0])


KILLED = """
import os, signal, sys
import torch
from pathlib import Path
from convergent import causal, causal_sweep, training
from test_causal import FIRST, RECIPE, Setting, dataset

torch.set_num_threads(1)
causal.images.load = lambda *args: dataset()
setting = Setting("tiny", "cnn6", 0.2, RECIPE, 96, 48, 48, 16)
original, calls = training._learning_rate, 0

def deadly(*args):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)

training._learning_rate = deadly
runs = causal_sweep.conditions({FIRST: (1.0,)}, range(2))
causal_sweep.sweep(runs, setting, Path(sys.argv[1]), progress=False)
"""


def test_a_sweep_that_is_killed_in_the_middle_of_a_run_goes_on_to_the_same_numbers(setting, tmp_path):
    arguments = [str(tmp_path / "killed"), str(12 + 6 + 3)]  # in the second epoch of the second run
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parent, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    runs = causal_sweep.conditions({FIRST: (1.0,)}, range(2))
    assert len(causal_sweep.Manifest(tmp_path / "killed" / "manifest.jsonl").rows()) == 1
    tables = [causal_sweep.sweep(runs, setting, tmp_path / name, progress=False) for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*[table.drop(columns="seconds") for table in tables])


@smoke
def test_the_published_grids_have_both_signs_and_zero_and_three_seeds():
    for architecture in ("cnn6", "resnet18"):
        for alphas in causal_plans.pushes(architecture).values():
            assert alphas == sorted(-alpha for alpha in alphas)
            assert 0 in alphas
    assert all(len(alphas) >= 9 for alphas in causal_plans.pushes("cnn6").values())
    assert {name for name, _ in causal_plans.pushes("cnn6", "cave-scenes")} == {"responses-early", "responses-late"}
    assert causal_plans.SEEDS == 3
    with pytest.raises(ValueError, match="no published sweep of 'vgg11'"):
        causal_plans.pushes("vgg11")


@smoke
def test_what_the_chapter_is_asked_for_is_checked_before_any_work(tmp_path):
    causal.check_reference("gabor")
    causal.check_dataset("cave-scenes")
    with pytest.raises(ValueError, match="reference 'gabour' is not gabor"):
        causal.check_reference("gabour")
    with pytest.raises(FileNotFoundError, match="none.npz is not here"):
        causal.check_reference(f"npz:{tmp_path / 'none.npz'}:V1v,V1d")
    assert causal_plans.strengths("3 -1 0.5", "laptop") == [-1, 0, 0.5, 3]
    assert causal_plans.strengths("3 -1 0.5", "smoke") == [-1, 0, 3]
    for text, message in (("0", "at least one number"), ("1,2", "spaces between")):
        with pytest.raises(ValueError, match=message):
            causal_plans.strengths(text, "laptop")


@smoke
def test_shuffled_images_are_not_aligned_and_chance_is_that_of_the_metric(setting):
    network, row = trained(replace(setting, recipe=replace(RECIPE, epochs=12)), 5.0)
    chance = achieved.chance(network, "layer1", gabor.GaborBank(16), setting.data.test.images)
    assert chance < 0.02
    assert row["alignment"] > chance + 0.1
    assert setting.chance == pytest.approx(1 / 3)
    assert setting.score == "accuracy"


@smoke
def test_the_papers_runs_are_more_than_sixty_networks_and_their_time_is_estimated(capsys):
    causal_plans.main(["--full", "--dry-run"])
    said = capsys.readouterr().out
    assert sum(plan.n_runs for plan in causal_plans.FULL) > 60
    assert "GPU hours" in said
    with pytest.raises(SystemExit):
        causal_plans.main(["--full"])


@smoke
def test_average_precision_is_scikit_learns_and_needs_every_class():
    scores = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert tasks.mean_average_precision(scores, labels) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="class 1 is in none of 3 images"):
        tasks.mean_average_precision(scores, torch.tensor([[1.0, 0.0]] * 3))
