import numpy as np
import pytest
import torch
from torch import nn

from convergent import networks
from convergent.networks import ARCHITECTURES, layers, load
from convergent.padded import PaddedConv2d
from convergent.representations import extract, recording
from tiny import assert_same_weights

smoke = pytest.mark.smoke
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
DEPTHS = {
    "cnn6": 6,
    "vgg11": 8,
    "vgg11-5x5": 8,
    "vgg11-7x7": 8,
    "alexnet": 7,
    "resnet18": 9,
    "factorised_vgg": 6,
    "plain_vgg": 6,
}


@pytest.fixture
def pixels():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))


# --- ours --------------------------------------------------------------------------------------------


@smoke
@every_architecture
@torch.inference_mode()
def test_bytes_and_floats_from_0_to_1_give_the_same_logits(name, pixels):
    network = load(name, n_classes=7, width=0.1, seed=0)
    logits = network(pixels)
    assert logits.shape == (5, 7)
    assert logits.std() > 0
    torch.testing.assert_close(network(pixels.float() / 255), logits)


@smoke
@every_architecture
@torch.inference_mode()
def test_small_and_large_images_give_logits_too(name):
    network = load(name, width=0.1, seed=0)
    for size in (16, 64):
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 10)


@smoke
@every_architecture
@torch.inference_mode()
def test_the_named_layers_run_once_each_and_in_order(name, pixels):
    network = load(name, width=0.1, seed=0)
    ran = []
    for layer in layers(network):
        network.get_submodule(layer).register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    network(pixels)
    assert ran == layers(network)
    assert len(ran) == DEPTHS[name]


@smoke
@every_architecture
@torch.inference_mode()
def test_width_multiplies_the_channels_of_every_layer(name, pixels):
    channels = []
    for width in (0.125, 0.25):
        network = load(name, width=width, seed=0)
        with recording(network, layers(network)) as outputs:
            network(pixels)
        channels.append([output.shape[1] for output in outputs.values()])
    assert [2 * c for c in channels[0]] == channels[1]


@smoke
def test_the_narrowest_network_still_has_a_channel_in_every_layer(pixels):
    network = load("cnn6", width=1e-6)
    assert {m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)} == {1}
    assert network(pixels).shape == (5, 10)


@smoke
def test_cnn6_has_six_convolutions_of_the_documented_sizes():
    found = [(m.out_channels, *m.kernel_size) for m in load("cnn6").modules() if isinstance(m, nn.Conv2d)]
    assert found == [(32, 5, 5), (32, 3, 3), (64, 3, 3), (64, 3, 3), (96, 3, 3), (96, 3, 3)]


@smoke
def test_vgg11_is_simplified_as_guth_and_menard_do():
    network = load("vgg11", width=0.1)
    assert [name for name, p in network.named_parameters() if p.ndim < 2] == [], "no biases, no gains"
    assert [m.bias for m in network.modules() if isinstance(m, nn.Linear)] == [None], "one linear classifier"
    convolutions = 0
    for name in layers(network):
        steps = [type(m) for m in network.get_submodule(name) if not isinstance(m, nn.MaxPool2d)]
        assert steps == [PaddedConv2d, nn.ReLU, nn.BatchNorm2d], "batch norm follows the nonlinearity"
        convolutions += 1
    assert convolutions == 8
    assert not any(m.affine for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@smoke
@torch.inference_mode()
def test_vgg11_takes_32_pixels_to_one_place_by_its_five_poolings(pixels):
    network = load("vgg11", width=0.05)
    with recording(network, ["layer1", "layer8"]) as outputs:
        network(pixels)
    assert outputs["layer1"].shape[2:] == (32, 32)
    assert outputs["layer8"].shape[2:] == (2, 2), "the last pooling is the global average"


@smoke
@pytest.mark.parametrize("size", [3, 5, 7])
def test_vgg11_has_filters_of_the_size_asked_for(size):
    network = networks.vgg11(width=0.05, kernel_size=size)
    assert {m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)} == {(size, size)}
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@smoke
@every_architecture
def test_one_seed_gives_one_set_of_weights(name):
    first, again, other = (load(name, width=0.1, seed=seed).state_dict() for seed in (3, 3, 4))
    assert_same_weights(first, again)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@smoke
def test_a_seed_leaves_the_global_generator_alone_and_no_seed_draws_from_it():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load("cnn6", width=0.1, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = load("cnn6", width=0.1).state_dict()
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert_same_weights(drawn, load("cnn6", width=0.1).state_dict())


@smoke
@every_architecture
def test_networks_come_in_evaluation_mode(name):
    assert not any(module.training for module in load(name, width=0.1).modules())


@smoke
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cnn7", "Did you mean 'cnn6'"),
        ("resnet", "Did you mean 'resnet18'"),
        ("zebra", "cnn6, vgg11, vgg11-5x5"),
        ("keras:resnet18", "'keras' is not a source"),
        ("torchvision:resnet181", "resnet18"),
        ("timm:vit_tiny_patch16_22", "vit_tiny_patch16_224"),
        ("torchvision:", "torchvision has no network ''"),
    ],
)
def test_an_unknown_network_is_answered_with_what_there_is(name, says):
    with pytest.raises(ValueError, match=says):
        load(name, pretrained=False)


@smoke
@pytest.mark.parametrize("options", [{"width": 0}, {"width": -1.0}, {"n_classes": 1}, {"n_classes": 0}])
def test_impossible_widths_and_class_counts_are_refused(options):
    with pytest.raises(ValueError, match="needs width > 0 and at least 2 classes"):
        load("cnn6", **options)


# --- torchvision's and timm's ------------------------------------------------------------------------


@smoke
@pytest.mark.parametrize(
    ("name", "first", "size", "mean", "std"),
    [
        ("torchvision:resnet18", "conv1", 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("timm:vit_tiny_patch16_224", "patch_embed.proj", 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("timm:resnet18", "conv1", 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
@torch.inference_mode()
def test_networks_of_other_packages_normalise_by_their_own_statistics(name, first, size, mean, std):
    network, seen = load(name, pretrained=False, seed=0), []
    network.get_submodule(first).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    assert torch.equal(network(pixels), network(pixels.float() / 255))
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize(
    ("name", "size", "some"),
    [
        pytest.param("torchvision:resnet18", 64, ["conv1", "layer1.0", "layer4.1", "fc"], marks=smoke),
        ("torchvision:alexnet", 64, ["features.0", "features.1", "classifier.6"]),
        ("torchvision:vgg11", 64, ["features.0", "features.20", "classifier.0"]),
        pytest.param("timm:vit_tiny_patch16_224", 224, ["patch_embed", "blocks.0", "blocks.11", "head"], marks=smoke),
    ],
)
def test_every_listed_layer_of_a_foreign_network_can_be_extracted(name, size, some):
    network = load(name, pretrained=False, seed=0)
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    rows = extract(network, pixels, spatial="pool")
    assert list(rows) == layers(network)
    assert [layer for layer in some if layer not in rows] == []
    assert {len(values) for values in rows.values()} == {2}
    assert [layer for layer, values in rows.items() if not np.isfinite(values).all()] == []
    assert rows[layers(network)[-1]].shape == (2, 1000)


@smoke
def test_layers_of_any_module_are_its_children_with_containers_opened():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.body = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.ReLU(), nn.Identity()))
            self.heads = nn.ModuleList([nn.Linear(2, 2)])

    assert layers(Two()) == ["stem", "body.0", "body.2.0", "heads.0"]
