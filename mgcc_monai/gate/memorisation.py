"""Which generated images are copies of training images, by a test that is itself put to the test in every audit.

Images are brought to 64 x 64, the local mean is taken off and the local deviation divided out, and windows of 29 x 29
cells, each 4 x 4 pixels of 128, are correlated: the centre of one image with every window of the other, shifted by up
to 6 pixels of 128 in steps of 2, plain and mirrored left to right. So brightness, contrast and gamma hardly count, and
fine speckle, which an autoencoder loses, does not count at all. An image is flagged as a copy if its highest
correlation exceeds the 95th percentile of that of held-out real images after ``decode(encode(x))``.

Real breast images are bright above and dark below, so plain correlation finds them all alike; the local contrast sets
copies far apart. Measured with a blur and a reduction to 32 x 32 pixels as the autoencoder, 100 planted copies a kind,
``least`` is the lowest correlation of a copy (of the 400) with its source:

    images    training  held-out  novel   measure          median  threshold  least  false alarms
    BUSI           362        52    102   plain             0.82      0.918   0.910          5.9 %
    BUSI           362        52    102   local contrast    0.37      0.525   0.856          3.9 %
    phantoms       300       100    200   plain             0.80      0.872   0.941          4.0 %
    phantoms       300       100    200   local contrast    0.47      0.561   0.851          3.0 %

(median: of the held-out images; false alarms: novel images flagged, after the same reduction.) With an autoencoder
that reduced to 16 x 16 pixels all copies were still found, but up to 11 % of novel phantoms flagged. Time: 4 s for 500
generated and 400 training images on one core, less than 1 GB.

Passing the audit does not make images anonymous: it looks for whole images, not for a lesion in other surroundings,
nor for copies turned, magnified or cropped by more than the shifts.

Source: Akbar et al. 2025 (arXiv 2305.07644), correlation with all training images; Dar et al. 2023 (arXiv 2307.01148),
the threshold from real validation images; Carlini et al. 2023 (arXiv 2301.13188), the flagging of generated images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.gate.features import BLOCK, SIDE, check_images, to_side

__all__ = [
    "PERCENTILE",
    "AuditFailed",
    "audit",
    "calibrate",
    "correlations",
    "nearest_reference",
    "positive_controls",
    "too_few",
]

PERCENTILE = 95.0
LEAST_RECALL = 0.95

_SHIFT = 3  # cells of 64, each 2 pixels of 128
_MEAN, _DEVIATION = 6.0, 8.0  # standard deviations of the Gaussians of the local mean and deviation, cells of 64
_EVEN = 0.02  # added to the local deviation: darkness and noise below it do not count
_LEAST = 5  # held-out images, below which there is no threshold
_PLANTED = 100  # training images at most whose copies are planted, for each kind
_KINDS = ("lossy", "flipped", "shifted", "brightened")

Reconstruct = Callable[[Tensor], Tensor]


class AuditFailed(MGCCError):
    """The audit missed copies that were planted, so it can say nothing of the generated images."""


def _smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of B1HW, mirrored at the borders."""
    radius = round(3 * sigma)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    maps = F.conv2d(F.pad(maps, (radius, radius, 0, 0), mode="reflect"), kernel[None, None, None])
    return F.conv2d(F.pad(maps, (0, 0, radius, radius), mode="reflect"), kernel[None, None, :, None])


def _detail(images: Tensor) -> Tensor:
    """Local contrast of B1HW in [0, 1]: B, 1, 64, 64 without local mean, in units of the local deviation."""
    small = F.avg_pool2d(to_side(check_images(images)), 2)
    small = small - _smooth(small, _MEAN)
    return small / (_smooth(small.square(), _DEVIATION) + _EVEN**2).sqrt()


def _window(detail: Tensor, top: int, left: int) -> Tensor:
    """One window of each image, as rows of zero mean and unit length; zeros where it is even."""
    side = detail.shape[-1] - 2 * _SHIFT
    rows = F.avg_pool2d(detail[:, :, top : top + side, left : left + side], 2).flatten(1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def _correlations(images: Tensor, references: Tensor) -> Iterator[Tensor]:
    """As :func:`correlations`, some references at a time: (N, at most BLOCK)."""
    centre = torch.cat([_window(_detail(block), _SHIFT, _SHIFT) for block in images.split(BLOCK)])
    for block in references.split(BLOCK):
        best = centre.new_full((len(centre), len(block)), -1.0)
        for detail in (_detail(block), _detail(block.flip(-1))):
            for top in range(2 * _SHIFT + 1):
                for left in range(2 * _SHIFT + 1):
                    torch.maximum(best, centre @ _window(detail, top, left).T, out=best)
        yield best.clamp(-1, 1)


def correlations(images: Tensor, references: Tensor) -> Tensor:
    """Highest correlation of each image with each reference, over all shifts and both sides.

    Args:
        images: (N, 1, H, W) in [0, 1].
        references: (M, 1, H, W) in [0, 1]; the two sizes may differ.

    Returns:
        (N, M), in [-1, 1].
    """
    return torch.cat([*_correlations(images, references)], dim=1)


def nearest_reference(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the reference that it is most like.

    Args:
        images: (N, 1, H, W) in [0, 1].
        references: (M, 1, H, W) in [0, 1].

    Returns:
        its correlation (N,) and its index (N,).
    """
    return tuple(correlations(images, references).max(dim=1))


def too_few(heldout: int, training: int) -> list[str]:
    """Return what keeps so many held-out and training images from setting a threshold."""
    if heldout < _LEAST:
        return [
            f"memorisation audit: {heldout} held-out images found; give at least {_LEAST} (19 or more for a 95th "
            "percentile) in the validation list"
        ]
    if not training:
        return ["memorisation audit: no training images found; give the list that the generator was trained on"]
    return []


def calibrate(heldout_reconstructed: Tensor, training: Tensor) -> float:
    """Correlation above which an image counts as a copy: 5 % of further images of the same kind exceed it by chance.

    Args:
        heldout_reconstructed: (N, 1, H, W), real images that are not among the training images, nor near-duplicates
            of these, after ``decode(encode(x))``. The percentile is that of order ``0.95 * (N + 1)``, which 5 % of new
            images are expected to exceed whatever N is; with N below 19 it is their maximum, which 1 / (N + 1) do.
        training: (M, 1, H, W).

    Raises:
        MGCCError: for fewer than 5 held-out images, or no training image.
    """
    raise_errors(too_few(len(heldout_reconstructed), len(training)))
    found = nearest_reference(heldout_reconstructed, training)[0].double().cpu().numpy()
    return float(np.quantile(found, PERCENTILE / 100, method="weibull"))


def _reconstructed(images: Tensor, reconstruct: Reconstruct) -> Tensor:
    """Through the autoencoder in batches; what it makes is cut to [0, 1]."""
    parts = [reconstruct(batch).detach().float().cpu() for batch in images.split(32)]
    made = torch.cat(parts)
    if made.shape != images.shape or not torch.isfinite(made).all():
        raise MGCCError(
            f"memorisation audit: the autoencoder made {tuple(made.shape)} of {tuple(images.shape)}, or values that "
            "are not finite; train it again"
        )
    return made.clamp(0, 1)


def _shifted(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image moved at random by up to 6 pixels of 128 each way, its borders repeated."""
    reach = [max(1, round(2 * _SHIFT * side / SIDE)) for side in images.shape[2:]]
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    height, width = images.shape[2:]
    moved = torch.empty_like(images)
    for index in range(len(images)):
        top, left = (int(rng.integers(0, 2 * far + 1)) for far in reach)
        moved[index] = padded[index, :, top : top + height, left : left + width]
    return moved


def _brightened(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image with a gamma of 2/3 to 3/2 and a gain of 0.8 to 1.25, cut to [0, 1]."""
    shape = (len(images), 1, 1, 1)
    gamma = torch.from_numpy(np.exp(rng.uniform(-math.log(1.5), math.log(1.5), shape))).float()
    gain = torch.from_numpy(np.exp(rng.uniform(-math.log(1.25), math.log(1.25), shape))).float()
    return (gain * images.clamp(0, 1) ** gamma).clamp(0, 1)


def positive_controls(training: Tensor, reconstruct: Reconstruct, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Copies of training images as a generator would make them, each through the autoencoder.

    Args:
        training: (M, 1, H, W) in [0, 1]; at most 100 of them are drawn.
        reconstruct: the autoencoder, ``decode(encode(x))`` from B1HW in [0, 1] to the same.
        seed: of the draw, the shifts and the brightness.

    Returns:
        of each kind (lossy, flipped, shifted, brightened) the copies, and which training images they are of.
    """
    rng = np.random.default_rng(seed)
    index = torch.from_numpy(np.sort(rng.permutation(len(training))[:_PLANTED]))
    source = check_images(training[index], "training images").cpu()
    copies = (source, source.flip(-1), _shifted(source, rng), _brightened(source, rng))
    return {kind: (_reconstructed(made, reconstruct), index) for kind, made in zip(_KINDS, copies)}


def audit(
    generated: Tensor,
    training: Tensor,
    heldout: Tensor,
    reconstruct: Reconstruct,
    seed: int = 0,
    novel: Tensor | None = None,
) -> dict[str, Any]:
    """Look for copies of training images among generated ones, and for planted copies to know that it can find them.

    Args:
        generated: (N, 1, H, W) in [0, 1].
        training: (M, 1, H, W), all images that the generator was trained on.
        heldout: (K, 1, H, W), real images, none of them a near-duplicate of a training image; at least 5.
        reconstruct: the autoencoder, ``decode(encode(x))`` from B1HW in [0, 1] to the same.
        seed: of the planted copies.
        novel: (L, 1, H, W), further images that are certainly no copies, to count false alarms on, as they are and
            after the autoencoder.

    Returns:
        figures ready for JSON: the threshold and where it comes from; the generated images that are flagged
        (``copies_generated``), beside the rate at which real images that are no copies would be
        (``expected_false_positive_rate``); how many training images have a copy (``copied_training_images``); the
        ``recall`` of each kind of planted copy; ``images``, of each generated image its ``correlation`` with the
        ``nearest_reference``, a training image, and whether it is ``flagged``.

    Raises:
        AuditFailed: if fewer than 95 % of the planted copies of a kind exceed the threshold with their source.
        MGCCError: for fewer than 5 held-out images, or no training image.
    """
    threshold = calibrate(_reconstructed(heldout, reconstruct) if len(heldout) else heldout, training)
    planted = positive_controls(training, reconstruct, seed)
    sources = torch.cat([index for _, index in planted.values()])
    with_source = correlations(torch.cat([copies for copies, _ in planted.values()]), training)
    found = (with_source[torch.arange(len(sources)), sources] > threshold).double().reshape(len(planted), -1)
    recall = dict(zip(planted, found.mean(dim=1).tolist()))
    missed = ", ".join(f"{kind} {found:.2f}" for kind, found in recall.items() if found < LEAST_RECALL)
    if missed:
        raise AuditFailed(
            f"memorisation audit: of planted copies too few were found ({missed}; at least {LEAST_RECALL} is needed, "
            f"threshold {threshold:.3f}), so nothing may be shared; train the autoencoder until its reconstructions "
            "are like the images, and check that no held-out image is a near-duplicate of a training image"
        )
    highest, nearest = torch.full((len(generated),), -1.0), torch.zeros(len(generated), dtype=torch.long)
    copied = 0
    for number, found in enumerate(_correlations(generated, training) if len(generated) else ()):
        copied += int((found > threshold).any(dim=0).sum())
        best, index = (part.cpu() for part in found.max(dim=1))
        nearest = torch.where(best > highest, number * BLOCK + index, nearest)
        highest = torch.maximum(highest, best)
    flagged = highest > threshold
    rows = zip(highest.tolist(), nearest.tolist(), flagged.tolist())
    result = {
        "method": "local-contrast correlation at 32 x 32 with flips and shifts of 6/128",
        "threshold": threshold,
        "percentile": PERCENTILE,
        "calibration_images": len(heldout),
        "expected_false_positive_rate": max(1 - PERCENTILE / 100, 1 / (len(heldout) + 1)),
        "generated": len(generated),
        "copies_generated": int(flagged.sum()),
        "training": len(training),
        "copied_training_images": copied,
        "planted": min(len(training), _PLANTED),
        "recall": recall,
        "least_recall": LEAST_RECALL,
        "images": [{"correlation": value, "nearest_reference": near, "flagged": flag} for value, near, flag in rows],
    }
    if novel is not None and len(novel):
        for name, images in (("novel", novel), ("novel_reconstructed", _reconstructed(novel, reconstruct))):
            flags = nearest_reference(images, training)[0] > threshold
            result[name] = {"images": len(images), "false_positives": int(flags.sum())}
    return result
