"""The factorised network: what is frozen is what was measured, and its fast form is a convolution in groups."""

import json

import pytest
import torch
from torch.nn.functional import conv2d

import tiny
from convergent import encodings, factorised, networks, paths, spatial_filters, zoo
from convergent.training import Recipe

pytestmark = pytest.mark.smoke


def test_the_frozen_filters_are_the_first_eigenvectors_of_the_shipped_networks():
    entries = [entry for name in ("cave", "cifar10") for entry in zoo.get("cnn6", name, range(4))]
    layers = [entry.network.get_submodule(f"layer{i}") for entry in entries for i in range(2, 7)]
    filters = [m.weight for layer in layers for m in layer.modules() if isinstance(m, torch.nn.Conv2d)]
    covariances = [spatial_filters.spatial_covariance(f) for f in filters]
    _, measured = spatial_filters.eigenvectors(sum(c / c.trace() for c in covariances))
    cosines = (measured[:5] * factorised.frozen_filters()[:5]).sum(1).abs()
    assert len(filters) == 40
    torch.testing.assert_close(cosines, torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_each_filter_comes_with_its_negative():
    filters = factorised.frozen_filters()
    assert filters.shape == (10, 9)
    assert torch.equal(filters[5:], -filters[:5])
    torch.testing.assert_close(filters[:5] @ filters[:5].T, torch.eye(5), atol=1e-3, rtol=0)


def test_responses_with_and_without_gradients_are_rectified_convolutions_of_each_channel():
    x = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(0))
    layer = factorised.Responses()
    with torch.no_grad():
        fast = layer(x)
    kernels = factorised.frozen_filters().view(10, 1, 3, 3)
    one_by_one = [conv2d(x[:, [c]], kernels, padding=1).relu() for c in range(3)]
    torch.testing.assert_close(fast, torch.cat(one_by_one, 1))
    torch.testing.assert_close(layer(x.requires_grad_()), fast)


def test_only_the_mixing_of_channels_and_the_classifier_learn():
    network = networks.load("factorised_vgg", seed=0)
    learned = {name: tuple(p.shape) for name, p in network.named_parameters()}
    channels = (3, 32, 64, 64, 128, 128, 128)
    expected = {f"layer{i}.pointwise.weight": (channels[i], 10 * channels[i - 1], 1, 1) for i in range(1, 7)}
    assert learned == expected | {"head.weight": (10, 128)}


@pytest.mark.parametrize(
    ("options", "says"), [({"labels": "false"}, "labels 'false'"), ({"tier": "lap"}, "tier 'lap'")]
)
def test_what_cannot_be_trained_is_refused_before_work(monkeypatch, options, says):
    monkeypatch.setattr(encodings.images, "load", None)
    with pytest.raises(ValueError, match=says):
        encodings.trained("factorised_vgg", **options)


def test_few_true_labels_and_random_ones_share_their_images(monkeypatch):
    asked = []
    monkeypatch.setattr(encodings.zoo, "get", lambda name, data, *rest: asked.append((data, *rest)) or [data])
    for labels, seed in (("few", 0), ("random", 0), ("random", 1)):
        encodings.trained("factorised_vgg", "cave", labels, seed, tier="smoke")
    assert len({data.hash for data, *_ in asked}) == 1
    assert len(asked[0][0].train) == encodings.N_FEW["smoke"]
    recipes = [next(x for x in rest if isinstance(x, Recipe)) for _, *rest in asked]
    assert [recipe.random_labels for recipe in recipes] == [0, 1, 1]
    assert len({recipe.epochs for recipe in recipes}) == 1


def test_shipping_adds_networks_in_half_precision_and_leaves_the_others(tmp_path, monkeypatch):
    data = tiny.dataset(name="cave")
    monkeypatch.setattr(encodings.images, "load", lambda name: data)
    monkeypatch.setenv("CONVERGENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "data", lambda: tmp_path / "data")
    monkeypatch.setattr(encodings, "recipe", lambda *_, **__: tiny.RECIPE)
    monkeypatch.setattr(encodings, "SHIPPED", [("cave", "few", 0)])
    folder = tmp_path / "data" / "zoo"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps([{"file": "other.safetensors", "dataset": "x", "data_hash": ""}]))
    trained = encodings.trained("factorised_vgg", "cave", "few", progress=False)
    encodings.build(folder)
    records = json.loads((folder / "manifest.json").read_text())
    assert [record["file"] for record in records] == ["other.safetensors", "factorised_vgg-cave-few-seed0.safetensors"]
    again = encodings.trained("factorised_vgg", "cave", "few", progress=False)
    assert again.folder == folder
    for name, weights in again.network.state_dict().items():
        torch.testing.assert_close(weights, trained.network.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert (folder / records[1]["file"]).stat().st_size < 0.7 * (trained.folder / trained.record["file"]).stat().st_size
