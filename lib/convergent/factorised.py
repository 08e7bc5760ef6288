"""A network whose space is frozen and whose channels learn (Guth & Ménard 2024, section 2.3 and appendix B.2)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

# The first five eigenvectors of the covariance of 3x3 filters, averaged over layers 2 to 6 of the eight six-layer
# networks of data/zoo (each layer's covariance divided by its trace). A test measures them again.
FROZEN = (
    (0.3042, 0.3332, 0.3106, 0.3527, 0.3880, 0.3535, 0.3104, 0.3359, 0.3013),
    (0.3849, 0.4689, 0.3585, 0.0209, 0.0069, -0.0211, -0.3638, -0.4679, -0.3890),
    (-0.3417, 0.0115, 0.3865, -0.4799, -0.0127, 0.4829, -0.3793, -0.0169, 0.3549),
    (0.5992, -0.0318, -0.3014, -0.0223, -0.3421, -0.0313, -0.3028, -0.0228, 0.5817),
    (-0.0662, 0.0363, -0.5060, 0.0850, 0.6720, 0.0967, -0.5145, 0.0487, -0.0542),
)


def frozen_filters() -> Tensor:
    """The ten frozen filters: five measured eigenvectors, then their negatives, (10, 9); unit length."""
    five = torch.tensor(FROZEN)
    return torch.cat([five, -five]) / five.norm(dim=1).repeat(2)[:, None]


class Responses(nn.Module):
    """Each channel through the ten frozen 3x3 filters, then ReLU: (n, C, h, w) to (n, 10 C, h, w).

    Response k of channel c is channel 10 c + k.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("filters", frozen_filters())

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, height, width) to (n, 10 C, height, width); the ten responses of a channel stand together."""
        n, channels, height, width = x.shape
        if not torch.is_grad_enabled():
            each = self.filters.view(10, 1, 3, 3).repeat(channels, 1, 1, 1)
            return conv2d(x, each.to(x.dtype), padding=1, groups=channels).relu_()
        # The same numbers. On a CPU the gradient of a convolution in groups is slow: nine shifted copies of the input
        # and one product with a (9, 10) matrix train nearly twice as fast; without gradients it is the other way round.
        padded = pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        answers = (torch.stack(shifted, -1).reshape(-1, 9) @ self.filters.T).relu_()
        return answers.view(n, height, width, 10 * channels).permute(0, 3, 1, 2)


def block(n_in: int, n_out: int, pooled: bool) -> nn.Sequential:
    """Frozen responses, ReLU, batch norm without parameters, and the one thing that learns: `pointwise`, a 1x1
    convolution without bias from 10 `n_in` to `n_out` channels. `pooled`: resolution is halved first."""
    steps = {"pool": nn.MaxPool2d(2)} if pooled else {}
    steps |= {"responses": Responses(), "norm": nn.BatchNorm2d(10 * n_in, affine=False)}
    block = nn.Sequential()
    for name, step in (steps | {"pointwise": nn.Conv2d(10 * n_in, n_out, 1, bias=False)}).items():
        block.add_module(name, step)
    return block
