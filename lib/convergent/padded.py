"""Convolution with filters that are larger than the maps they look at."""

from torch import Tensor, nn
from torch.nn.functional import conv2d


class PaddedConv2d(nn.Conv2d):
    """A square convolution that keeps the size of the map, without bias, and leaves alone what only ever sees padding.

    On a map of 2x2 places no more than the inner 3x3 weights of a 7x7 filter meet a pixel. The result is that of
    `torch.nn.Conv2d`, and the gradient of the other weights is zero. PyTorch 2.14 does not guarantee that zero: in
    bfloat16 on CPUs it hands back what the memory held before, which is large numbers and NaN.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int):
        super().__init__(n_in, n_out, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """(n_images, n_in, height, width) to (n_images, n_out, height, width)."""
        padding = self.padding[0]
        reach = min(padding, max(z.shape[2:]) - 1)  # the farthest pixel that any place can see
        inner = slice(padding - reach, padding + reach + 1)
        return conv2d(z, self.weight[:, :, inner, inner], padding=reach)
