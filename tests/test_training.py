import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from convergent import images, networks, tasks, training
from convergent.training import Recipe, accuracy, checkpoint_steps, train
from tiny import RECIPE, assert_same_weights, dataset, split

smoke = pytest.mark.smoke
BATCHES = 6  # an epoch of dataset() in batches of 16


def trained(recipe=RECIPE, seed=0, architecture="cnn6", data=None, **options):
    """(network, run) of a tiny network whose initial weights do not depend on `seed`."""
    data = data or dataset()
    network = networks.load(architecture, len(data.classes), width=0.1, seed=0)
    run = train(network, data, recipe, seed, progress=False, **options)
    return network, run


def weights(*args, **options):
    return trained(*args, **options)[0].state_dict()


# --- the same again ----------------------------------------------------------------------------------


@smoke
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_one_seed_gives_the_same_weights_bit_for_bit(optimiser):
    recipe = replace(RECIPE, optimiser=optimiser, learning_rate=0.01)
    assert_same_weights(weights(recipe), weights(recipe))


@smoke
def test_another_seed_gives_other_weights():
    first, other = weights(seed=0), weights(seed=1)
    assert [name for name in first if name.endswith("weight") and torch.equal(first[name], other[name])] == []


@smoke
def test_training_neither_reads_nor_moves_the_global_generator():
    recipe = replace(RECIPE, epochs=1)
    torch.manual_seed(1)
    first = weights(recipe, architecture="alexnet")  # it has dropout, which draws from the global generator
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same_weights(first, weights(recipe, architecture="alexnet"))
    assert torch.equal(torch.get_rng_state(), before)


@smoke
def test_keeping_a_trajectory_or_a_state_does_not_change_the_weights(tmp_path):
    assert_same_weights(weights(), weights(folder=tmp_path, checkpoints=True))


# --- killed and resumed ------------------------------------------------------------------------------

# Trains as `trained` does, and kills itself in the middle of a step, or of writing a state.
KILLED = """
import os, signal, sys
import torch
from convergent import networks, training, training_state
from tiny import dataset
from test_training import long_recipe

torch.set_num_threads(1)
folder, architecture, optimiser, what, count = sys.argv[1:]
module = training_state if what == "save_file" else training
original, calls = getattr(module, what), 0

def deadly(*args, **options):
    global calls
    calls += 1
    if calls == int(count):
        if what == "save_file":
            args[1].write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **options)

setattr(module, what, deadly)
data = dataset()
network = networks.load(architecture, len(data.classes), width=0.1, seed=0)
training.train(network, data, long_recipe(optimiser), 0, folder, checkpoints=True, progress=False)
"""


def long_recipe(optimiser):
    return replace(RECIPE, epochs=4, optimiser=optimiser, learning_rate=0.01, random_labels=0.2)


@pytest.mark.parametrize(
    ("architecture", "optimiser", "what", "count", "epochs_kept"),
    [
        pytest.param("cnn6", "sgd", "_learning_rate", 2 * BATCHES + 4, 2, id="in the third epoch", marks=smoke),
        pytest.param("alexnet", "adam", "_learning_rate", BATCHES + 2, 1, id="with dropout and Adam"),
        pytest.param("cnn6", "sgd", "_learning_rate", 3, 0, id="before anything was kept"),
        pytest.param("resnet18", "sgd", "save_file", 3, 2, id="while it wrote its state"),
    ],
)
def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_never_killed(
    tmp_path, architecture, optimiser, what, count, epochs_kept
):
    arguments = [str(tmp_path / "killed"), architecture, optimiser, what, str(count)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parent, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    state = tmp_path / "killed" / "state.safetensors"
    assert state.exists() == (epochs_kept > 0)
    if epochs_kept:
        with safe_open(state, framework="pt") as file:
            assert file.metadata()["step"] == str(epochs_kept * BATCHES)

    options = {"recipe": long_recipe(optimiser), "architecture": architecture, "checkpoints": True}
    steps = []
    resumed, run = trained(**options, folder=tmp_path / "killed", extra_loss=counting(steps))
    whole, expected = trained(**options, folder=tmp_path / "whole")
    assert len(steps) == (4 - epochs_kept) * BATCHES, "the epochs that were kept are not trained again"
    assert_same_weights(resumed.state_dict(), whole.state_dict())
    assert list(run.checkpoints) == list(expected.checkpoints)
    for step, kept in run.checkpoints.items():
        assert_same_weights(kept, expected.checkpoints[step])
    measured = ["epoch", "step", "loss", "train_accuracy", "test_accuracy"]
    assert run.history[measured].equals(expected.history[measured])


def counting(steps):
    """An extra loss of zero that leaves a mark at each step."""

    def extra_loss(network, batch, logits, labels, step):
        steps.append(len(batch))
        return logits.sum() * 0

    return extra_loss


@smoke
def test_a_finished_run_is_not_trained_again(tmp_path):
    steps = []
    first, run = trained(folder=tmp_path)
    again, rerun = trained(folder=tmp_path, extra_loss=counting(steps))
    assert steps == []
    assert_same_weights(first.state_dict(), again.state_dict())
    assert rerun.history.equals(run.history)


@smoke
@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"recipe": replace(RECIPE, learning_rate=0.02)},
        {"data": dataset(seed=1)},
        {"checkpoints": True},
    ],
    ids=["seed", "recipe", "images", "trajectory"],
)
def test_a_folder_with_another_run_is_refused(tmp_path, other):
    trained(folder=tmp_path)
    with pytest.raises(ValueError, match="another recipe, seed or data set: use another folder"):
        trained(folder=tmp_path, **other)


@smoke
@pytest.mark.parametrize("content", [b"", b"half a file", None], ids=["empty", "garbage", "truncated"])
def test_a_damaged_state_is_not_used_and_the_run_starts_anew_with_a_warning(tmp_path, content):
    expected = weights(folder=tmp_path)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100] if content is None else content)
    with pytest.warns(UserWarning, match="is damaged .* the run starts from its beginning"):
        assert_same_weights(expected, weights(folder=tmp_path))


@smoke
def test_the_loss_scale_of_float16_is_resumed_too(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "mixed_precision", lambda where: torch.float16)
    scales, original = [], torch.amp.GradScaler

    class Noted(original):
        def update(self, *args):
            # float16 rarely overflows in so small a network: another scale stands for a run in which it did.
            super().update(512.0 if not scales else None)
            scales.append(self.get_scale())

        def load_state_dict(self, state):
            super().load_state_dict(state)
            scales.append(self.get_scale())

    monkeypatch.setattr(torch.amp, "GradScaler", Noted)
    trained(folder=tmp_path)
    del scales[:]
    trained(folder=tmp_path)
    assert scales == [512.0]


# --- trajectories ------------------------------------------------------------------------------------


@smoke
@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs", "expected"),
    [
        (10, 2, [0, 1, 2, 4, 8, 10, 20]),
        (8, 1, [0, 1, 2, 4, 8]),
        (1, 3, [0, 1, 2, 3]),
        (156, 2, [0, 1, 2, 4, 8, 16, 32, 64, 128, 156, 312]),
    ],
)
def test_checkpoints_double_their_distance_in_the_first_epoch_and_then_close_each_epoch(
    steps_per_epoch, epochs, expected
):
    assert checkpoint_steps(steps_per_epoch, epochs) == expected


@smoke
def test_a_trajectory_starts_with_the_initial_weights_and_ends_with_the_final_ones():
    initial = networks.load("cnn6", 3, width=0.1, seed=0).state_dict()
    network, run = trained(checkpoints=True)
    assert list(run.checkpoints) == checkpoint_steps(BATCHES, RECIPE.epochs)
    assert_same_weights(run.checkpoints[0], initial)
    assert_same_weights(run.checkpoints[2 * BATCHES], network.state_dict())
    assert not torch.equal(run.checkpoints[1]["head.weight"], initial["head.weight"])


@smoke
def test_without_a_trajectory_none_is_kept():
    assert trained()[1].checkpoints == {}


# --- labels and images -------------------------------------------------------------------------------


@smoke
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_random_labels_is_the_one_asked_for(share):
    labels = torch.arange(20_000) % 10
    noisy = training._training_labels(labels, 10, replace(RECIPE, random_labels=share), seed=0)
    changed = (noisy != labels).double().mean()
    assert changed == pytest.approx(0.9 * share, abs=0.02), "one in ten random labels is the right one"
    assert set(noisy.tolist()) == set(range(10))


@smoke
def test_random_labels_follow_from_the_seed_and_are_drawn_once():
    labels, recipe = torch.arange(300) % 3, replace(RECIPE, random_labels=0.5)
    first, again, other = (training._training_labels(labels, 3, recipe, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    seen = {}
    data = dataset()

    def note(network, batch, logits, targets, step):
        for image, target in zip(batch, targets, strict=True):
            seen.setdefault(bytes(image.cpu().contiguous().numpy()), set()).add(int(target))
        return logits.sum() * 0

    trained(replace(recipe, crop=0, flip=False, epochs=3), data=data, extra_loss=note)
    assert {len(labels) for labels in seen.values()} == {1}, "an image keeps its random label in every epoch"
    right = sum(seen[bytes(data.train.images[i].numpy())] == {int(data.train.labels[i])} for i in range(96))
    assert 96 * 0.5 < right < 96 * 0.9


def batches(recipe, data, epoch=0, seed=0):
    stream = training._Batches(data.images, data.labels, recipe, seed)
    parts = list(stream.epoch(epoch))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@smoke
def test_without_crop_and_flip_an_epoch_is_the_images_themselves_each_once_with_its_label():
    data = split(64)
    seen, labels = batches(replace(RECIPE, crop=0, flip=False), data)
    known = {bytes(image.numpy()): int(label) for image, label in zip(data.images, data.labels, strict=True)}
    found = {bytes(image.contiguous().numpy()): int(label) for image, label in zip(seen, labels, strict=True)}
    assert seen.dtype == torch.uint8
    assert found == known
    assert not torch.equal(seen, data.images), "in random order"


@smoke
def test_two_epochs_show_the_images_in_two_orders():
    data = split(64)
    first, second = (batches(replace(RECIPE, crop=0, flip=False), data, epoch)[0] for epoch in (0, 1))
    assert not torch.equal(first, second)


@smoke
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_shifts_each_image_by_at_most_its_pixels_mirrored_at_the_border_and_keeps_its_label(flip):
    crop, size, n = 2, 16, 256
    data = images.Split(split(n, size=size).images, torch.arange(n))  # the label says which image it is
    seen, labels = batches(replace(RECIPE, crop=crop, flip=flip), data)
    padded = torch.nn.functional.pad(data.images.float(), (crop,) * 4, mode="reflect").byte()
    shifts = {}
    for image, label in zip(seen, labels, strict=True):
        for dy in range(2 * crop + 1):
            for dx in range(2 * crop + 1):
                window = padded[label, :, dy : dy + size, dx : dx + size]
                for mirrored in (False, True):
                    if torch.equal(image, window.flip(2) if mirrored else window):
                        shifts[int(label)] = (dy, dx, mirrored)
    assert sorted(shifts) == list(range(n)), "every image is found among the shifts of the image of its label"
    assert {(dy, dx) for dy, dx, _ in shifts.values()} == {(y, x) for y in range(5) for x in range(5)}
    share = sum(mirrored for *_, mirrored in shifts.values()) / n
    assert share == 0 if not flip else 0.35 < share < 0.65


@smoke
@pytest.mark.parametrize("wrong", [-1, 3, 99])
def test_a_label_that_the_network_cannot_give_is_refused(wrong):
    data = dataset()
    data.train.labels[7] = wrong
    with pytest.raises(ValueError, match=f"labels run from .*{wrong}.*but the network has 3 outputs"):
        trained(data=data)


@smoke
def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="12 training images do not fill one batch of batch_size=16"):
        trained(data=dataset(n_train=12))


@smoke
def test_a_crop_that_is_larger_than_the_images_is_refused():
    with pytest.raises(ValueError, match="crop=16 shifts images of"):
        trained(replace(RECIPE, crop=16))


@smoke
def test_n_train_takes_so_many_images_balanced_over_classes_and_all_where_there_are_fewer():
    classes, sizes = [], []

    def note(network, batch, logits, targets, step):
        classes.append(targets.clone())
        sizes.append(len(targets))
        return logits.sum() * 0

    trained(replace(RECIPE, n_train=48, epochs=1), extra_loss=note)
    assert torch.bincount(torch.cat(classes)).tolist() == [16, 16, 16]
    del sizes[:]
    trained(replace(RECIPE, n_train=1000, epochs=1), extra_loss=note)
    assert sum(sizes) == 96


# --- the loss ----------------------------------------------------------------------------------------


@smoke
def test_an_extra_loss_of_zero_changes_nothing_and_another_one_does():
    plain = weights()
    assert_same_weights(plain, weights(extra_loss=counting([])))
    pulled = weights(extra_loss=lambda network, batch, logits, labels, step: 0.1 * logits.square().mean())
    assert not torch.equal(plain["head.weight"], pulled["head.weight"])


@smoke
def test_the_gradient_of_an_extra_loss_reaches_the_weights():
    def small_filters(network, batch, logits, labels, step):
        return 100 * network.layer1[0].weight.square().sum()

    def size(state):
        return float(state["layer1.0.weight"].norm())

    recipe = replace(RECIPE, learning_rate=0.002, schedule="constant")
    assert size(weights(recipe, extra_loss=small_filters)) < 0.2 * size(weights(recipe))


@smoke
def test_an_extra_loss_sees_the_network_its_images_its_logits_and_the_labels():
    seen = []

    def note(network, batch, logits, labels, step):
        seen.append((network.training, tuple(batch.shape), tuple(logits.shape), logits.requires_grad, len(labels)))
        return logits.sum() * 0

    trained(extra_loss=note)
    assert set(seen) == {(True, (16, 3, 16, 16), (16, 3), True, 16)}


@smoke
def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_state(tmp_path):
    steps = []

    def breaks_in_the_second_epoch(network, batch, logits, labels, step):
        steps.append(0)
        return logits.sum() * (math.nan if len(steps) == BATCHES + 3 else 0)

    with pytest.raises(ValueError, match=r"the loss is nan after step 12 \(epoch 2\).*look at extra_loss"):
        trained(folder=tmp_path, extra_loss=breaks_in_the_second_epoch)
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert file.metadata()["step"] == str(BATCHES)
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())
    assert_same_weights(weights(folder=tmp_path), weights())


@smoke
@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_a_learning_rate_that_is_far_too_high_is_named_in_the_error(tmp_path, rate):
    recipe = replace(RECIPE, learning_rate=rate, schedule="constant")
    with pytest.raises(ValueError, match="lower learning_rate=1e"):
        trained(recipe, architecture="vgg11", folder=tmp_path)
    assert not (tmp_path / "state.safetensors").exists()


@smoke
def test_weights_that_overflow_in_the_last_step_are_not_kept(tmp_path):
    recipe = replace(RECIPE, epochs=1, batch_size=96, learning_rate=1e38, schedule="constant", n_train=96)

    def steep(network, batch, logits, labels, step):
        return 1e3 * network.head.weight.sum()

    with pytest.raises(ValueError, match="the weights are not finite"):
        trained(recipe, folder=tmp_path, extra_loss=steep)
    assert not (tmp_path / "state.safetensors").exists()


@smoke
def test_a_network_is_handed_back_ready_for_use_also_when_training_fails():
    def fails(network, batch, logits, labels, step):
        raise KeyboardInterrupt

    stopped = networks.load("cnn6", 3, width=0.1)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, dataset(), RECIPE, extra_loss=fails, progress=False)
    for network in (stopped, trained()[0]):
        assert not any(module.training for module in network.modules())
        assert {p.device.type for p in network.parameters()} == {"cpu"}
        assert network.layer1[0].weight.is_contiguous()


@smoke
def test_an_extra_loss_is_told_which_training_images_it_sees_and_after_how_many_steps():
    data, numbers = dataset(), []

    def note(network, batch, logits, labels, step):
        assert torch.equal(batch, data.train.images[step.chosen])
        numbers.append(step.number)
        return logits.sum() * 0

    trained(replace(RECIPE, crop=0, flip=False), data=data, extra_loss=note)
    assert numbers == list(range(2 * BATCHES))


@smoke
def test_a_module_whose_rate_is_nearly_zero_stays_and_the_others_learn():
    recipe = replace(RECIPE, weight_decay=0.0)
    before = weights(replace(recipe, learning_rate=1e-30))
    after = weights(recipe, rates={"layer1": 1e-30})
    assert torch.allclose(before["layer1.0.weight"], after["layer1.0.weight"])
    assert not torch.allclose(before["layer2.0.weight"], after["layer2.0.weight"])
    with pytest.raises(ValueError, match="no module layer9"):
        weights(rates={"layer9": 1.0})


@smoke
def test_several_labels_an_image_are_learned_and_scored_by_average_precision():
    data = dataset()
    both = [
        replace(part, labels=torch.stack([part.labels == 0, part.labels != 1], 1).float())
        for part in (data.train, data.test)
    ]
    data = replace(data, train=both[0], test=both[1], classes=["first", "not second"])
    _, run = trained(replace(RECIPE, epochs=4), data=data, task=tasks.MANY_CLASSES)
    assert run.accuracy > 0.8
    with pytest.raises(ValueError, match="labels of 2 classes"):
        trained(data=replace(data, classes=["a", "b", "c"]), task=tasks.MANY_CLASSES)


# --- learning ----------------------------------------------------------------------------------------


@smoke
def test_a_tiny_network_learns_to_tell_red_green_and_blue_apart():
    data = dataset()
    untrained = accuracy(networks.load("cnn6", 3, width=0.1, seed=0), data.test)
    network, run = trained(replace(RECIPE, epochs=5), data=data)
    assert run.accuracy > 0.9 > untrained
    assert accuracy(network, data.test) == pytest.approx(run.accuracy, abs=0.03)
    assert run.history.loss.iloc[-1] < run.history.loss.iloc[0]


@smoke
def test_random_labels_are_not_learned_by_the_test_images():
    _, run = trained(replace(RECIPE, epochs=5, random_labels=1.0))
    assert run.accuracy < 0.75


@smoke
def test_the_history_has_a_row_for_each_epoch():
    _, run = trained()
    columns = ["epoch", "step", "loss", "train_accuracy", "test_accuracy", "seconds", "test_seconds"]
    assert list(run.history.columns) == columns
    assert run.history.epoch.tolist() == [1, 2]
    assert run.history.step.tolist() == [BATCHES, 2 * BATCHES]
    assert run.history[["train_accuracy", "test_accuracy"]].stack().between(0, 1).all()
    assert run.accuracy == run.history.test_accuracy.iloc[-1]


@smoke
def test_accuracy_is_the_share_of_right_answers_whatever_the_batch_size():
    class BrightestChannel(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return images.float().mean((2, 3))

    data = split(50)
    data.labels[:10] = (data.labels[:10] + 1) % 3
    for batch_size in (1, 7, 50, 500):
        assert accuracy(BrightestChannel(), data, batch_size) == 0.8


@smoke
def test_measuring_accuracy_leaves_the_network_in_its_mode():
    network = networks.load("cnn6", 3, width=0.1)
    for training_mode in (True, False):
        network.train(training_mode)
        accuracy(network, split(10))
        assert network.training == training_mode


# --- recipes -----------------------------------------------------------------------------------------


@smoke
def test_onecycle_rises_over_the_first_fifth_and_falls_to_zero():
    recipe, total = replace(RECIPE, schedule="onecycle", learning_rate=0.4), 1000
    rates = [training._learning_rate(recipe, step, total) for step in range(total + 1)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.4, rel=1e-2)
    assert peak == pytest.approx(200, abs=2)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[0] < 0.01
    assert 0 < rates[total - 1] < 0.01
    assert rates[total] == 0


@smoke
def test_the_step_schedule_divides_by_ten_after_each_third():
    recipe = replace(RECIPE, schedule="step", learning_rate=1.0)
    rates = [training._learning_rate(recipe, step, 9) for step in range(9)]
    assert rates == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3)


@smoke
def test_the_constant_schedule_is_constant():
    recipe = replace(RECIPE, schedule="constant", learning_rate=0.3)
    assert {training._learning_rate(recipe, step, 9) for step in range(9)} == {0.3}


@smoke
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_weights_decay_but_biases_and_gains_do_not(optimiser):
    network = networks.load("cnn6", 3, width=0.1)
    groups = training._optimiser(network, replace(RECIPE, optimiser=optimiser, weight_decay=0.1), {}).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] == 0.1 for p in group["params"]}
    free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert decayed == {id(m.weight) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert decayed | free == {id(p) for p in network.parameters()}


@smoke
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", 1),
        ("batch_size", 16.0),
        ("optimiser", "lbfgs"),
        ("learning_rate", 0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("schedule", "cosine"),
        ("weight_decay", -1e-4),
        ("weight_decay", 1),
        ("weight_decay", math.nan),
        ("crop", -1),
        ("crop", 1.5),
        ("flip", "yes"),
        ("random_labels", -0.1),
        ("random_labels", 1.1),
        ("random_labels", math.nan),
        ("n_train", 1),
        ("n_train", 10.5),
    ],
)
def test_an_impossible_recipe_is_refused_with_the_value(name, value):
    with pytest.raises(ValueError, match=f"Recipe: {name}={value!r} is not possible".replace("+", r"\+")):
        Recipe(**{name: value})


# --- devices -----------------------------------------------------------------------------------------


@smoke
def test_a_processor_without_bfloat16_of_its_own_trains_in_float32(monkeypatch):
    monkeypatch.setattr(training, "device", lambda: torch.device("cpu"))
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert training.mixed_precision(torch.device("cpu")) is None
    dtypes = []

    def note(network, batch, logits, labels, step):
        dtypes.append(logits.dtype)
        return logits.sum() * 0

    trained(extra_loss=note)
    assert set(dtypes) == {torch.float32}


@smoke
@pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_a_processor_with_bfloat16_of_its_own_multiplies_in_it(monkeypatch, name):
    for other in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, other, lambda other=other: other == name, raising=False)
    assert training.mixed_precision(torch.device("cpu")) is torch.bfloat16


@smoke
def test_mixed_precision_keeps_weights_and_their_test_in_float32(monkeypatch):
    monkeypatch.setattr(training, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(training, "mixed_precision", lambda where: torch.bfloat16)
    dtypes = []

    def note(network, batch, logits, labels, step):
        dtypes.append(logits.dtype)
        return logits.sum() * 0

    network, _ = trained(extra_loss=note)
    assert set(dtypes) == {torch.bfloat16}
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network(split(2).images).dtype == torch.float32


@smoke
def test_the_device_is_the_fastest_one_here():
    if torch.cuda.is_available():
        assert training.device().type == "cuda"
    else:
        assert training.device().type == ("mps" if torch.backends.mps.is_available() else "cpu")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")),
        pytest.param(
            "mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no Apple GPU here")
        ),
    ],
)
def test_a_gpu_trains_learns_resumes_and_hands_the_network_back(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "device", lambda: torch.device(kind))
    recipe, steps = replace(RECIPE, epochs=4), []

    def stops_in_the_third_epoch(network, batch, logits, labels, step):
        assert batch.device.type == logits.device.type == kind
        steps.append(0)
        if len(steps) == 2 * BATCHES + 3:
            raise KeyboardInterrupt
        return logits.sum() * 0

    with pytest.raises(KeyboardInterrupt):
        trained(recipe, folder=tmp_path, extra_loss=stops_in_the_third_epoch)
    resumed, run = trained(recipe, folder=tmp_path)
    assert run.accuracy > 0.7
    assert {p.device.type for p in resumed.parameters()} == {"cpu"}
    if kind == "cuda":
        assert_same_weights(resumed.state_dict(), weights(recipe))
