"""Architectures for small images, and one door to pretrained ones.

Every network takes images as they come from `convergent.images`: uint8, or floats in [0, 1], shape
(n_images, 3, height, width). It normalises them itself, so that no caller can forget to.
"""

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.resnet import BasicBlock

from . import factorised
from .padded import PaddedConv2d


class Normalise(nn.Module):
    """Images to zero mean and unit spread: (image - mean) / std, channel by channel."""

    def __init__(self, mean=(0.47, 0.45, 0.42), std=(0.25, 0.25, 0.25)):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 or [0, 1] images (n_images, 3, height, width), normalised."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return (images - self.mean) / self.std


class ImageNetwork(nn.Module):
    """Named blocks in a row, global average pooling, one linear classifier.

    Attributes
    ----------
    layer_names : list of str
        The blocks whose outputs are the network's representations, from input to output.
    """

    def __init__(self, blocks: dict[str, nn.Module], n_features: int, n_classes: int, head_bias: bool = True):
        super().__init__()
        self.normalise = Normalise()
        self.layer_names = list(blocks)
        for name, block in blocks.items():
            self.add_module(name, block)
        self.head = nn.Linear(n_features, n_classes, bias=head_bias)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes (n_images, n_classes)."""
        z = self.normalise(images)
        for name in self.layer_names:
            z = getattr(self, name)(z)
        return self.head(z.mean((2, 3)) if z.ndim == 4 else z)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def cnn6(n_classes: int = 10, width: float = 1.0) -> ImageNetwork:
    """A plain six-layer network: convolution, batch norm, ReLU; halved resolution before layers 3 and 5.

    Channels 32-32-64-64-96-96 times `width`. Filters are 3x3, in the first layer 5x5: large enough that their
    orientation can be seen. The network that most chapters train.
    """
    n_in, blocks = 3, {}
    for i, channels in enumerate((32, 32, 64, 64, 96, 96), start=1):
        n_out, size = _scaled(channels, width), 5 if i == 1 else 3
        convolution = nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=False)
        steps = [convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        # The pooling opens a block rather than closing one, so that a layer is what its ReLU says.
        blocks[f"layer{i}"] = nn.Sequential(*([nn.MaxPool2d(2)] if i in (3, 5) else []), *steps)
        n_in = n_out
    return ImageNetwork(blocks, n_in, n_classes)


def vgg11(n_classes: int = 10, width: float = 1.0, kernel_size: int = 3) -> ImageNetwork:
    """VGG-11 (Simonyan & Zisserman 2015) as Guth & Ménard (2024, appendix B.1) simplify it.

    No biases; batch norm after the ReLU and without learned parameters; one linear classifier. Filters are
    `kernel_size` x `kernel_size`. Five poolings take 32x32 images to 1x1.
    """
    plan = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
    n_in, blocks, pooling = 3, {}, []
    for entry in plan:
        if entry == "pool":
            pooling = [nn.MaxPool2d(2)]
            continue
        n_out = _scaled(entry, width)
        convolution = PaddedConv2d(n_in, n_out, kernel_size)
        norm = nn.BatchNorm2d(n_out, affine=False)
        blocks[f"layer{len(blocks) + 1}"] = nn.Sequential(*pooling, convolution, nn.ReLU(inplace=True), norm)
        n_in, pooling = n_out, []
    return ImageNetwork(blocks, n_in, n_classes, head_bias=False)  # the last pooling is the global average


def alexnet(n_classes: int = 10, width: float = 1.0) -> ImageNetwork:
    """AlexNet (Krizhevsky et al. 2012) for small images: its five convolutions and two hidden linear layers.

    The first filters are 5x5 at stride 1 instead of 11x11 at stride 4, poolings are 2x2, batch norm replaces
    local response normalisation, and the hidden linear layers have 1,024 instead of 4,096 units.
    """
    plan = ((64, 5, False), (192, 5, True), (384, 3, True), (256, 3, False), (256, 3, False))
    n_in, blocks = 3, {}
    for i, (channels, size, pooled) in enumerate(plan, start=1):
        n_out = _scaled(channels, width)
        convolution = nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=False)
        steps = [convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        blocks[f"conv{i}"] = nn.Sequential(*([nn.MaxPool2d(2)] if pooled else []), *steps)
        n_in = n_out
    n_hidden, n_in = _scaled(1024, width), n_in * 16
    flatten = [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    blocks["fc6"] = nn.Sequential(*flatten, nn.Dropout(0.5), nn.Linear(n_in, n_hidden), nn.ReLU(inplace=True))
    blocks["fc7"] = nn.Sequential(nn.Dropout(0.5), nn.Linear(n_hidden, n_hidden), nn.ReLU(inplace=True))
    return ImageNetwork(blocks, n_hidden, n_classes)


def resnet18(n_classes: int = 10, width: float = 1.0) -> ImageNetwork:
    """ResNet-18 (He et al. 2016) for small images: a 3x3 stem without pooling, then its eight basic blocks."""
    n_in = _scaled(64, width)
    stem = nn.Conv2d(3, n_in, 3, padding=1, bias=False)
    blocks = {"stem": nn.Sequential(stem, nn.BatchNorm2d(n_in), nn.ReLU(inplace=True))}
    for stage, channels in enumerate((64, 128, 256, 512)):
        n_out = _scaled(channels, width)
        for position in range(2):
            stride = 2 if stage > 0 and position == 0 else 1
            shortcut = None
            if stride != 1:
                projection = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
                shortcut = nn.Sequential(projection, nn.BatchNorm2d(n_out))
            blocks[f"block{len(blocks)}"] = BasicBlock(n_in, n_out, stride, shortcut)
            n_in = n_out
    return ImageNetwork(blocks, n_in, n_classes)


def factorised_vgg(n_classes: int = 10, width: float = 1.0) -> ImageNetwork:
    """Six layers whose spatial filters are frozen, so that only the mixing of channels learns.

    After Guth & Ménard (2024, appendix B.2), narrower and shallower: channels 32-64-64-128-128-128 times `width`,
    poolings before layers 2, 3 and 5. No biases, batch norm without learned parameters, one linear classifier.
    """
    n_in, blocks = 3, {}
    for i, channels in enumerate((32, 64, 64, 128, 128, 128), start=1):
        n_out = _scaled(channels, width)
        blocks[f"layer{i}"] = factorised.block(n_in, n_out, pooled=i in (2, 3, 5))
        n_in = n_out
    return ImageNetwork(blocks, n_in, n_classes, head_bias=False)


def plain_vgg(n_classes: int = 10, width: float = 1.0) -> ImageNetwork:
    """The counterpart of `factorised_vgg` whose spatial filters learn: the same channels and poolings, 3x3 filters."""
    n_in, blocks = 3, {}
    for i, channels in enumerate((32, 64, 64, 128, 128, 128), start=1):
        n_out = _scaled(channels, width)
        steps = [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm2d(n_out, affine=False)]
        blocks[f"layer{i}"] = nn.Sequential(*([nn.MaxPool2d(2)] if i in (2, 3, 5) else []), *steps)
        n_in = n_out
    return ImageNetwork(blocks, n_in, n_classes, head_bias=False)


ARCHITECTURES: dict[str, Callable[..., ImageNetwork]] = {
    "cnn6": cnn6,
    "vgg11": vgg11,
    "vgg11-5x5": partial(vgg11, kernel_size=5),
    "vgg11-7x7": partial(vgg11, kernel_size=7),
    "alexnet": alexnet,
    "resnet18": resnet18,
    "factorised_vgg": factorised_vgg,
    "plain_vgg": plain_vgg,
}


OWN = ("checkpoint", "python")  # names that `own_networks` understands


def split(name: str) -> tuple[str, str | None]:
    """A name without its weights, and these: "torchvision:alexnet?weights=FILE" gives ("torchvision:alexnet", "FILE").

    Raises
    ------
    ValueError for anything but "weights=" after a question mark.
    """
    model, mark, query = name.partition("?")
    key, _, weights = query.partition("=")
    if mark and (key != "weights" or not weights):
        raise ValueError(f"network {name!r}: after the name comes '?weights=FILE.safetensors' or '?weights=random'")
    return model, weights or None


def check(name: str) -> None:
    """Raise what `load` would for a name that it does not know, or weights that are not there, before any work.

    Raises
    ------
    ValueError for an unknown name (with the nearest ones).
    FileNotFoundError for a file of weights that does not exist.
    """
    if name.partition(":")[0] in OWN:
        from . import own_networks

        own_networks.check(name)
        return
    full, (name, weights) = name, split(name)
    source, _, model = name.rpartition(":")
    if source not in ("", "torchvision", "timm"):
        known = ", ".join(f"'{one}:'" for one in ("torchvision", "timm", *OWN, "activations"))
        raise ValueError(f"network {name!r}: {source!r} is not a source; use one of {known}")
    if not source and model not in ARCHITECTURES:
        raise ValueError(
            f"network {name!r} is not one of {', '.join(ARCHITECTURES)}.{near(model, ARCHITECTURES)}"
            " Networks of other packages are written 'torchvision:resnet18' or 'timm:vit_tiny_patch16_224'."
        )
    if source:
        known = _names(source)
        if model not in known:
            raise ValueError(f"{source} has no network {model!r}.{near(model, known)}")
    if weights not in (None, "random") and not Path(weights).is_file():
        raise FileNotFoundError(f"network {full!r}: there is no file {weights!r} here ({Path.cwd()})")


def near(model: str, known) -> str:
    """ " Did you mean 'this' or 'that'?" of the known names most like one; "" where none is."""
    found = difflib.get_close_matches(model, known, n=3)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def _names(source: str) -> list[str]:
    if source == "torchvision":
        from torchvision import models

        return models.list_models()
    import timm

    return timm.list_models() + timm.list_pretrained()


def load(
    name: str, n_classes: int = 10, width: float = 1.0, seed: int | None = None, pretrained: bool = True
) -> nn.Module:
    """A network by name.

    Parameters
    ----------
    name : one of `ARCHITECTURES`, "torchvision:NAME" or "timm:NAME"; after it "?weights=FILE.safetensors" for weights
        of your own (a state dict, as `safetensors.torch.save_file` writes it), or "?weights=random" for none. Or one of
        the names of `own_networks`: "checkpoint:FILE.safetensors?architecture=NAME", "python:FILE.py:FUNCTION"
    n_classes : outputs of one of ours (pretrained networks keep their own classifier)
    width : factor on the number of channels of one of ours
    seed : of the initial weights; None draws them from torch's global generator
    pretrained : whether a torchvision or timm network comes with its trained weights (downloaded once)

    Returns
    -------
    nn.Module in evaluation mode on the CPU; takes uint8 or [0, 1] images (n_images, 3, height, width). One of another
    package has an attribute `input_size`, the height of the images that it was made for.

    Raises
    ------
    ValueError for an unknown name (with the nearest ones), a width that is not positive, fewer than 2 classes, a file
    of weights that is no such file or belongs to another network.
    FileNotFoundError for a file of weights that does not exist.
    OSError (from the download) where weights are wanted and there is no network connection.
    """
    check(name)
    if name.partition(":")[0] in OWN:
        from . import own_networks

        return own_networks.load(name, seed, trained=pretrained)
    full, (name, weights) = name, split(name)
    source, _, model = name.rpartition(":")
    if not source and (width <= 0 or n_classes < 2):
        raise ValueError(f"network {name!r} needs width > 0 and at least 2 classes, not {width} and {n_classes}")
    pretrained = pretrained and weights is None
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network = _made(source, model, pretrained, n_classes if not source else None, width)
    if weights not in (None, "random"):
        fill(network, weights_of(Path(weights), full), Path(weights), full)
    return network.eval()


def bare(name: str, n_classes: int | None = None, width: float = 1.0) -> nn.Module:
    """An architecture with fresh weights: ours, torchvision's or timm's, with another number of classes if wanted."""
    source, _, model = name.rpartition(":")
    return _made(source, model, False, n_classes if source else n_classes or 10, width)


def _made(source: str, model: str, pretrained: bool, n_classes: int | None, width: float) -> nn.Module:
    if not source:
        return ARCHITECTURES[model](n_classes, width)
    return (_from_torchvision if source == "torchvision" else _from_timm)(model, pretrained, n_classes)


def weights_of(path: Path, name: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name. Raises ValueError where it is no such file."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"network {name!r}: {path} is not a safetensors file ({error}); safetensors.torch.save_file writes one"
        ) from error


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    """Give a network its weights. Raises ValueError, with what does not fit, for those of another one."""
    wanted = network.state_dict()
    missing, unknown = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    other = [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    # Counts of batches came into batch norm later than its statistics: older files do not have them.
    missing = {key for key in missing if not key.endswith("num_batches_tracked")}
    if missing or unknown or other:
        found = {"lacks": missing, "has": unknown, "differs in shape at": other}
        told = "; ".join(
            f"{verb} {', '.join(sorted(keys)[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            for verb, keys in found.items()
            if keys
        )
        raise ValueError(f"network {name!r}: {path} holds the weights of another network: it {told}")
    network.load_state_dict(wanted | state)


def _from_torchvision(model: str, pretrained: bool, n_classes: int | None) -> nn.Module:
    from torchvision import models

    options = {} if n_classes is None else {"num_classes": n_classes}
    network = models.get_model(model, weights="DEFAULT" if pretrained else None, **options)
    # Those of detection and video say no size of crop.
    size = getattr(models.get_model_weights(model).DEFAULT.transforms(), "crop_size", [224])[0]
    return prepared(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size)


def _from_timm(model: str, pretrained: bool, n_classes: int | None) -> nn.Module:
    import timm

    options = {} if n_classes is None else {"num_classes": n_classes}
    network = timm.create_model(model, pretrained=pretrained, **options)
    made_for = network.pretrained_cfg
    return prepared(network, made_for["mean"], made_for["std"], made_for["input_size"][-1])


def prepared(network: nn.Module, mean, std, size: int | None) -> nn.Module:
    """The network, which from now on normalises its images itself; `size`: height of those that it was made for.

    A hook, not a wrapper: the layers keep the names by which the package's users know them.
    """
    normalise = Normalise(mean, std)
    if size:
        network.input_size = size
    network.register_forward_pre_hook(lambda module, inputs: (normalise.to(inputs[0].device)(inputs[0]),))
    return network


def enlarge(network: nn.Module) -> nn.Module:
    """The same network, which from now on enlarges images below its `input_size` to that (bilinearly).

    A network that was made for 224 pixels fails on 32, or sees of them only what is as large as its coarsest filters.
    """

    def grow(module, inputs):
        small = inputs[0].shape[-1] < network.input_size
        size = (network.input_size,) * 2
        return (interpolate(inputs[0], size, mode="bilinear", align_corners=False),) if small else None

    network.register_forward_pre_hook(grow)  # after the one that normalises, and so on floats
    return network


def layers(network: nn.Module) -> list[str]:
    """Names of the layers whose outputs serve as representations, from input to output.

    Our networks name them. Of any other network they are its children in order, with containers
    (`Sequential`, `ModuleList`) opened, and layers that only pass on (dropout, identity) left out.
    """
    if hasattr(network, "layer_names"):
        return list(network.layer_names)
    names: list[str] = []

    def walk(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            opens = type(child) in (nn.Sequential, nn.ModuleList) or (prefix == "" and name == "features")
            if opens:
                walk(child, f"{prefix}{name}.")
            elif not isinstance(child, (nn.Identity, nn.Dropout)):
                names.append(prefix + name)

    walk(network, "")
    return names
