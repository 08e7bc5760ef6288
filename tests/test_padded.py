"""A filter larger than its map: the same result as torch's, and no gradient where there is nothing to see."""

import pytest
import torch
from torch import nn

from convergent.padded import PaddedConv2d

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 3), (8, 8)])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_it_gives_what_torch_gives_and_so_does_its_gradient(kernel_size, size):
    torch.manual_seed(0)
    ours, theirs = PaddedConv2d(3, 4, kernel_size), nn.Conv2d(3, 4, kernel_size, padding=kernel_size // 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    z = torch.randn(6, 3, *size)
    one, other = ours(z), theirs(z)
    torch.testing.assert_close(one, other)
    one.square().sum().backward()
    other.square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_in_half_precision_weights_that_see_only_padding_have_no_gradient():
    """With `torch.nn.Conv2d` these were left over from whatever used the memory before, and training broke off."""
    layer = PaddedConv2d(32, 32, 7).to(memory_format=torch.channels_last)
    for _ in range(5):
        del_me = torch.full((32, 32, 7, 7), float("nan"))
        del del_me
        z = torch.randn(16, 32, 2, 2).to(memory_format=torch.channels_last)
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = layer(z).float().square().mean()
        loss.backward()
        outer = layer.weight.grad.clone()
        assert (outer[:, :, 2:5, 2:5] != 0).any()
        outer[:, :, 2:5, 2:5] = 0
        assert (outer == 0).all()
