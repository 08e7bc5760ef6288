"""Images as waves: filters, phase noise and exchanged amplitudes, on float tensors (n, channels, size, size)."""

import math

import torch
from torch import Tensor


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a standard deviation of `sigma` pixels; the image goes on as its mirror image at the borders.

    Multiplied in the Fourier domain of the mirrored image, so that it is exact for every `sigma`.
    """
    return next(blurs(pixels, [sigma]))


def blurs(pixels: Tensor, sigmas):
    """The `blurred` images for each of `sigmas`, one after the other, from one transform."""
    height, width = pixels.shape[-2:]
    mirrored = torch.cat([pixels, pixels.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    spectrum = torch.fft.rfft2(mirrored)
    squares = _squared_frequencies(2 * height, 2 * width, pixels)
    for sigma in sigmas:
        kept = torch.exp(-2 * (math.pi * sigma) ** 2 * squares)
        yield torch.fft.irfft2(spectrum * kept, s=(2 * height, 2 * width))[..., :height, :width]


def _squared_frequencies(height: int, width: int, like: Tensor) -> Tensor:
    """Squared spatial frequency (cycles a pixel) of each coefficient of `rfft2`."""
    rows = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)
    columns = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
    return rows[:, None] ** 2 + columns**2


def low_pass(pixels: Tensor, cutoff: float) -> Tensor:
    """What is left of an image below `cutoff` cycles an image: a Gaussian of that standard deviation in frequency."""
    return blurred(pixels, pixels.shape[-1] / (2 * math.pi * cutoff))


def high_pass(pixels: Tensor, cutoff: float, grey: float = 127.5) -> Tensor:
    """What `low_pass` takes away, around `grey`: the two add up to the image and `grey`."""
    return pixels - low_pass(pixels, cutoff) + grey


def smooth_noise(noise: Tensor, sigma: float) -> Tensor:
    """White noise of variance 1 (..., size, size), blurred by `sigma` pixels, its variance 1 again. It wraps around."""
    squares = _squared_frequencies(*noise.shape[-2:], noise)
    kept = torch.exp(-2 * (math.pi * sigma) ** 2 * squares)
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) * kept, s=noise.shape[-2:])
    # The share of the variance that passes: over all coefficients, not over the half that rfft2 keeps.
    rows, columns = (torch.fft.fftfreq(n, dtype=noise.dtype, device=noise.device) for n in noise.shape[-2:])
    passing = torch.exp(-4 * (math.pi * sigma) ** 2 * (rows[:, None] ** 2 + columns**2)).mean()
    return smooth / passing.sqrt()


def _opposite(field: Tensor) -> Tensor:
    """The value at frequency -k in the place of frequency k."""
    return field.flip((-2, -1)).roll((1, 1), (-2, -1))


def odd(uniform: Tensor) -> Tensor:
    """Numbers (..., size, size) made odd, f(-k) = -f(k), by dropping half of them; 0 where k and -k are the same.

    A phase spectrum to which such numbers are added is still that of a real image.
    """
    number = torch.arange(uniform.shape[-2] * uniform.shape[-1], device=uniform.device).reshape(uniform.shape[-2:])
    half = uniform * (number < _opposite(number))
    return half - _opposite(half)


def phase_scrambled(pixels: Tensor, uniform: Tensor, width: float) -> Tensor:
    """Phases moved at random, amplitudes kept.

    Parameters
    ----------
    pixels : (n, channels, size, size)
    uniform : (n, size, size) in [-1, 1]: one noise for all channels, so that their relative phases, the colours of
        edges, stay
    width : largest change of a phase, in degrees; at 180 nothing is left of the phases

    Returns
    -------
    (n, channels, size, size); may leave 0 to 255

    Notes
    -----
    Wichmann et al. (2006), Geirhos et al. (2018).
    """
    turned = torch.polar(torch.ones_like(uniform), math.radians(width) * odd(uniform))
    return torch.fft.ifft2(torch.fft.fft2(pixels) * turned[:, None]).real


def amplitude(pixels: Tensor) -> Tensor:
    """Amplitude spectrum of every channel, (n, channels, size, size)."""
    return torch.fft.fft2(pixels).abs()


def mean_amplitude(images: Tensor, batch_size: int = 500) -> Tensor:
    """Mean amplitude spectrum of uint8 images (n, channels, size, size): (channels, size, size), float64."""
    sums = sum(amplitude(part.double()).sum(0) for part in images.split(batch_size))
    return sums / len(images)


def power_equalised(pixels: Tensor, wanted: Tensor) -> Tensor:
    """Each image with its own phases and the amplitudes `wanted` (channels, size, size); may leave 0 to 255.

    Notes
    -----
    Wichmann et al. (2010), Geirhos et al. (2018). A coefficient that is zero has no phase; it gets 0.
    """
    spectrum = torch.fft.fft2(pixels)
    size = spectrum.abs()
    # Below that, a coefficient is rounding: its phase would be noise that no real image has.
    absent = size <= 1e-9 * size.amax((-2, -1), keepdim=True)
    phases = torch.where(absent, torch.ones_like(spectrum), spectrum / size.clamp(min=torch.finfo(size.dtype).tiny))
    return torch.fft.ifft2(phases * wanted.to(pixels)).real
