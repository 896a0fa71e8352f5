"""What is measured of ultrasound images: a fixed, untrained feature network, and plain statistics of their texture.

Networks trained on photographs need a download and say little of speckle. Wavelet scattering needs neither data nor
weights: it measures how much of which scale and direction an image holds, and how that varies over the image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "BANDS",
    "BLOCK",
    "DIRECTIONS",
    "SIDE",
    "ScatteringFeatures",
    "band_power",
    "check_images",
    "distances",
    "extract",
    "intensity_statistics",
    "power_bands",
    "power_ratio",
    "speckle_statistics",
    "standardise",
    "to_side",
]

BLOCK = 512  # images compared at a time: memory grows with the number of images, not with its square
SIDE = 128  # pixels: the square that images are brought to before they are compared
BANDS = ((0.02, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.5))  # cycles a pixel
DIRECTIONS = ("all", "axial", "lateral")  # along the beam, which runs down the image, and across it

_SCALES = 5  # octaves: 128, 64, 32, 16 and 8 pixels a side
_ANGLES = 4  # 0, 45, 90 and 135 degrees
_WAVE = 0.35  # cycles a pixel of the wavelet, at each scale's own pixels
_ENVELOPE = 1.1  # standard deviation of its Gaussian, in the same pixels
_GRID = (4, 2)  # rows and columns over which the coarse scales are pooled: layers lie in rows
_FLOOR = 1e-3  # added before a logarithm: differences below some 0.1 % of full scale do not count
_WINDOW = 8  # pixels a side of the windows of the speckle's signal-to-noise ratio
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_LOCAL = 15  # pixels a side of the local mean that is taken off before the autocorrelation


def check_images(images: Tensor, name: str = "images") -> Tensor:
    """Return the images as float32; refuse what is not a stack of grey images.

    Args:
        images: B1HW in [0, 1], at least 16 pixels a side.
        name: what they are, for the message.

    Raises:
        ValueError: for another shape, integers, NaN, or values outside [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != 1 or min(images.shape[2:]) < 16 or not images.is_floating_point():
        raise ValueError(f"{name} must be floating B1HW of 16 pixels a side or more; got {tuple(images.shape)}.")
    images = images.detach().float()
    if images.numel() and not (images.min() >= -1e-4 and images.max() <= 1 + 1e-4):  # also false for NaN
        raise ValueError(f"{name} must lie in [0, 1]; found {images.min().item():.4g} to {images.max().item():.4g}.")
    return images


def to_side(images: Tensor, side: int = SIDE) -> Tensor:
    """Resize B1HW to a square: by means over whole pixels where they fit, else by smoothed linear interpolation."""
    height, width = images.shape[2:]
    if (height, width) == (side, side):
        return images
    if height % side == 0 and width % side == 0:
        return F.avg_pool2d(images, (height // side, width // side))
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _wavelets() -> Tensor:
    """Real and imaginary parts of the Morlet wavelets of zero mean, (2 x angles, 1, 9, 9)."""
    axis = torch.arange(-4, 5, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * _ENVELOPE**2))
    envelope = envelope / envelope.sum()
    parts = []
    for index in range(_ANGLES):
        angle = math.pi * index / _ANGLES
        phase = 2 * math.pi * _WAVE * (x * math.cos(angle) + y * math.sin(angle))
        parts += [envelope * (phase.cos() - (envelope * phase.cos()).sum()), envelope * phase.sin()]
    return torch.stack(parts)[:, None].float()


class ScatteringFeatures(nn.Module):
    """Wavelet scattering of first and second order: fixed, deterministic, nothing trained and nothing downloaded.

    An image of 128 x 128 is taken apart by Morlet wavelets of 5 octaves and 4 directions on a pyramid, each octave
    half as large as the one before. Their moduli are averaged: over the image for the two finest octaves (speckle),
    over 4 x 2 fields for the others (skin line, layers, lesion, shadow). The modulus of each is taken apart again by
    every coarser octave, and averaged over the image as a fraction of the first order. The mean grey level of the
    fields stands as it is; all else as logarithms. D = 272: 8 + 8 + 96 + 160. Every image is treated by itself.

    Source: Bruna and Mallat 2013, "Invariant Scattering Convolution Networks", IEEE TPAMI 35:1872, equations 4 to 8;
    the pyramid in place of ever wider filters: Burt and Adelson 1983, IEEE Trans. Communications 31:532.
    """

    name = "mgcc-scattering-v1"

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("wavelets", _wavelets(), persistent=False)
        self.register_buffer("binomial", (row[:, None] * row)[None, None], persistent=False)

    def _halve(self, maps: Tensor) -> Tensor:
        batch, channels, height, width = maps.shape
        padded = F.pad(maps.reshape(batch * channels, 1, height, width), (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.binomial, stride=2).reshape(batch, channels, height // 2, width // 2)

    def _moduli(self, maps: Tensor) -> Tensor:
        """B, C, H, W to B, C x angles, H, W."""
        batch, channels, height, width = maps.shape
        padded = F.pad(maps.reshape(batch * channels, 1, height, width), (4, 4, 4, 4), mode="reflect")
        parts = F.conv2d(padded, self.wavelets).reshape(batch, channels * _ANGLES, 2, height, width)
        return parts.square().sum(dim=2).add(1e-12).sqrt()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: B1HW in [0, 1]; of another size they are resized.

        Returns:
            (B, 272), float64.

        Raises:
            ValueError: if they are not such images.
        """
        level = to_side(check_images(images))
        found = [F.adaptive_avg_pool2d(level, _GRID).flatten(1)]
        for scale in range(_SCALES):
            first = self._moduli(level)
            pooled = first.mean(dim=(2, 3)) if scale < 2 else F.adaptive_avg_pool2d(first, _GRID).flatten(1)
            found.append((pooled + _FLOOR).log())
            coarser = first
            for _ in range(scale + 1, _SCALES):
                coarser = self._halve(coarser)
                second = self._moduli(coarser).mean(dim=(2, 3)).reshape(len(images), _ANGLES, _ANGLES)
                share = (second + _FLOOR) / (first.mean(dim=(2, 3)) + _FLOOR)[:, :, None]
                found.append(share.log().flatten(1))
            if scale + 1 < _SCALES:
                level = self._halve(level)
        return torch.cat(found, dim=1).double()


def extract(network: nn.Module, images: Tensor, batch_size: int = 32) -> Tensor:
    """Features of any number of images, batch by batch.

    Args:
        network: as :class:`ScatteringFeatures`.
        images: B1HW in [0, 1], at least one.
        batch_size: images at a time; it does not change the features.

    Returns:
        (B, D), float64, on the CPU.
    """
    with torch.no_grad():
        return torch.cat([network(batch).double().cpu() for batch in images.split(batch_size)])


def standardise(features: Tensor, reference: Tensor) -> Tensor:
    """Features in units of the reference's standard deviation, about its mean.

    Args:
        features: (N, D).
        reference: (M, D), the training images' features.
    """
    return (features - reference.mean(dim=0)) / reference.std(dim=0).clamp_min(1e-3)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between the rows of (N, D) and (M, D), computed without cancellation: (N, M)."""
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def band_power(images: Tensor, direction: str = "all") -> Tensor:
    """Variance of each image in each of ``BANDS``, as radial spatial frequency in cycles a pixel.

    The mean is taken off, a Hann window in both directions keeps the borders from leaking, and its loss is made up
    for: a sinusoid of amplitude a within a band counts a**2 / 2. Frequencies above 0.5 (the corners) are left out.

    Args:
        images: B1HW in [0, 1].
        direction: "all", or of ``DIRECTIONS`` "axial" for what changes faster downwards than sideways, "lateral"
            for the rest.

    Returns:
        (B, 4), float64.
    """
    images = check_images(images)[:, 0]
    height, width = images.shape[1:]
    window = (torch.hann_window(height).double()[:, None] * torch.hann_window(width).double()).to(images.device)
    down, across = torch.fft.fftfreq(height)[:, None].abs(), torch.fft.fftfreq(width).abs()
    radius = (down**2 + across**2).sqrt()
    used = {"all": radius >= 0, "axial": down >= across, "lateral": down < across}[direction]
    bands = [(used & (radius >= low) & (radius < high)).to(images.device) for low, high in BANDS]
    found = []
    for batch in map(Tensor.double, images.split(32)):
        spectrum = torch.fft.fft2((batch - batch.mean(dim=(1, 2), keepdim=True)) * window).abs() ** 2
        spectrum = spectrum / (height * width) ** 2 / window.square().mean()
        found.append(torch.stack([spectrum[:, band].sum(dim=1) for band in bands], dim=1))
    return torch.cat(found)


def power_bands(images: Tensor, direction: str = "all") -> dict[str, float]:
    """Mean over the images of :func:`band_power`, by band: ``{"0.02-0.1": ...}``."""
    power = band_power(images, direction).mean(dim=0).tolist()
    return {f"{low:g}-{high:g}": value for (low, high), value in zip(BANDS, power)}


def power_ratio(generated: Tensor, real: Tensor, direction: str = "all") -> dict[str, float | None]:
    """Power of generated images over that of real ones, by band; 1 is right, below 1 is lost detail.

    Args:
        generated: B1HW in [0, 1].
        real: B1HW in [0, 1], of the same height and width.
        direction: see :func:`band_power`; a checkerboard of a decoder shows in one of them, and may be hidden in "all"
            by what is lost in the other.

    Returns:
        a ratio a band; None where the real images have no power at all.
    """
    made, wanted = power_bands(generated, direction), power_bands(real, direction)
    return {band: made[band] / wanted[band] if wanted[band] > 0 else None for band in made}


def intensity_statistics(images: Tensor) -> dict[str, float]:
    """Mean, standard deviation and percentiles of all pixels, and the spread of the images' own means.

    Args:
        images: B1HW in [0, 1].
    """
    pixels = check_images(images).cpu().numpy()
    means = pixels.mean(axis=(1, 2, 3), dtype=np.float64)
    variance = np.mean([image.var(dtype=np.float64) for image in pixels]) + means.var()
    result = {"mean": float(means.mean()), "std": float(np.sqrt(variance))}
    result |= zip([f"percentile_{percent}" for percent in _PERCENTILES], np.percentile(pixels, _PERCENTILES).tolist())
    return result | {"std_of_image_means": float(means.std())}


def _autocorrelation(images: Tensor) -> Tensor:
    """Of the detail of each image of B1HW, from lag 0 on, 1 there: BHW; images without detail are left out."""
    border = _LOCAL // 2
    rows = F.avg_pool2d(images, (_LOCAL, 1), stride=1, padding=(border, 0), count_include_pad=False)
    even = F.avg_pool2d(rows, (1, _LOCAL), stride=1, padding=(0, border), count_include_pad=False)
    detail = (images - even)[:, 0]
    detail = detail - detail.mean(dim=(1, 2), keepdim=True)
    height, width = detail.shape[1:]
    found = torch.fft.irfft2(torch.fft.rfft2(detail, s=(2 * height, 2 * width)).abs() ** 2)[:, :height, :width]
    found = found[found[:, 0, 0] > 1e-6 * height * width]
    return found / found[:, :1, :1]


def _half_width(correlation: Tensor) -> float:
    """Full width at half maximum of a correlation given from lag 0 on, between samples by straight lines."""
    below = (correlation < 0.5).nonzero()
    if not len(below):
        return 2.0 * len(correlation)
    lag = int(below[0])
    high, low = correlation[lag - 1].item(), correlation[lag].item()
    return 2 * (lag - 1 + (high - 0.5) / (high - low))


def speckle_statistics(images: Tensor) -> dict[str, float | None]:
    """Contrast and size of the speckle, in the images' own pixels.

    ``snr``: the median over windows of 8 x 8 pixels of mean over standard deviation, windows darker than 0.05 left
    out. Images are log-compressed, so the 1.91 of an envelope is not to be expected. ``width_x``, ``width_y``: full
    width at half maximum of the autocorrelation, averaged over the images, after a local mean (15 x 15) is taken off.

    Args:
        images: B1HW in [0, 1].

    Returns:
        snr, width_x and width_y; None where images are too dark or too even to say.

    Source: Wagner et al. 1983, "Statistics of Speckle in Ultrasound B-Scans", IEEE Trans. SU 30:156.
    """
    windows, total, count = [], 0.0, 0
    for batch in check_images(images).split(32):
        windows.append(torch.stack([F.avg_pool2d(part, _WINDOW).flatten() for part in (batch, batch.square())]))
        found = _autocorrelation(batch)
        total, count = total + found.sum(dim=0), count + len(found)
    mean, power = torch.cat(windows, dim=1)
    deviation = (power - mean.square()).clamp_min(0).sqrt()
    usable = (mean > 0.05) & (deviation > 1e-4)
    result = {"snr": (mean[usable] / deviation[usable]).median().item() if usable.any() else None}
    if not count:
        return result | {"width_x": None, "width_y": None}
    correlation = total / count
    return result | {"width_x": _half_width(correlation[0]), "width_y": _half_width(correlation[:, 0])}
