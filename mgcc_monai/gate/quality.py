"""How good generated images are beside held-out real ones, and which of them are not fit to be used.

No figure says much alone, so each stands beside the same figure between real images: held-out against training. What
is drawn at random comes from a generator of its own seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.metrics import SSIMMetric
from torch import Tensor, nn

from mgcc_monai.errors import MGCCError
from mgcc_monai.gate.features import (
    BLOCK,
    DIRECTIONS,
    ScatteringFeatures,
    check_images,
    distances,
    extract,
    intensity_statistics,
    power_bands,
    power_ratio,
    speckle_statistics,
    standardise,
    to_side,
)

__all__ = ["assess", "fid", "kid", "precision_recall", "ssim_diversity"]

_COMPONENTS = 32  # of the features' leading components at most, for the FID
_DRAWS = 10  # random draws for figures that depend on the number of images
_SUBSETS = 100  # random subsets for the interval of the KID
_LEAST = 10  # images of a kind, below which nothing is said


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features must be (N, D) and (M, D), N and M at least 2; got {a.shape} and {b.shape}.")


def kid(a: Tensor, b: Tensor) -> float:
    """Kernel distance of two sets: the unbiased squared maximum mean discrepancy, kernel (x.y / D + 1)**3.

    About 0 for one distribution, and then as often negative; its mean does not depend on the numbers of images.

    Args:
        a: (N, D) features, standardised by the training images; see :func:`standardise`.
        b: (M, D), in the same way.

    Raises:
        ValueError: for other shapes, or fewer than 2 images.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401), section 4; Gretton 2012, equation 3.
    """
    _check_pair(a, b)
    a, b = a.double(), b.double()
    inside = 0.0
    for x in (a, b):
        with_itself = ((x.square().sum(dim=1) / x.shape[1] + 1) ** 3).sum().item()
        inside += (_kernel_sum(x, x) - with_itself) / (len(x) * (len(x) - 1))
    return inside - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    """Sum of the kernel over all pairs, some rows at a time: memory grows with their number, not with its square."""
    return sum(((rows @ b.T / b.shape[1] + 1) ** 3).sum().item() for rows in a.split(BLOCK))


def _components(count: int) -> int:
    return max(1, min(_COMPONENTS, count // 2))


def fid(a: Tensor, b: Tensor, reference: Tensor | None = None, components: int | None = None) -> float:
    """Frechet distance of two sets, between Gaussians fitted to their leading principal components.

    A covariance of D features cannot be had from fewer than D images, so the features are projected on the leading
    components of the reference. Biased upwards for few images: compare figures of equal numbers only.

    Args:
        a: (N, D) features, standardised as for :func:`kid`.
        b: (M, D), in the same way.
        reference: (K, D), whose components are used; ``b`` by default.
        components: how many; by default half the smallest number of images, at most 32 and D. With D nothing is lost.

    Returns:
        a finite number, at least 0.

    Raises:
        ValueError: for other shapes, or fewer than 2 images.

    Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule" (arXiv 1706.08500), equation 6.
    """
    _check_pair(a, b)
    reference = (b if reference is None else reference).double()
    if components is None:
        components = _components(min(len(a), len(b), len(reference)))
    basis = torch.linalg.svd(reference - reference.mean(dim=0), full_matrices=False).Vh[:components].T
    a, b = a.double() @ basis, b.double() @ basis
    ridge = 1e-6 * torch.eye(basis.shape[1], dtype=torch.float64)  # the root of a singular product may not exist
    moments = [(x.mean(dim=0), torch.cov(x.T).reshape(ridge.shape) + ridge) for x in (a, b)]
    return _frechet_distance(*moments[0], *moments[1])


def _frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other: Tensor) -> float:
    """Squared distance of two normals: the root of a product of covariances by the eigenvalues of a symmetric one."""
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other.trace() - 2 * cross
    return max(0.0, float(distance))


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of the generated images among the real ones (precision) and of real ones among the generated (recall).

    An image is among a set if it lies no farther from some member than that member's k-th nearest neighbour does.

    Args:
        real: (N, D) features, standardised as for :func:`kid`.
        generated: (M, D), in the same way; M = N for a fair comparison of the two.
        k: neighbour, below N and M.

    Returns:
        precision and recall, in [0, 1].

    Raises:
        ValueError: for other shapes, or a ``k`` that is too large.

    Source: Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric" (arXiv 1904.06991), equations 1 and 2.
    """
    _check_pair(real, generated)
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(f"k must lie between 1 and the number of images less one; got {k}.")
    radii = [distances(x, x).kthvalue(k + 1, dim=1).values for x in (real, generated)]
    between = distances(real, generated)
    precision = (between <= radii[0][:, None]).any(dim=0).double().mean().item()
    return precision, (between <= radii[1][None]).any(dim=1).double().mean().item()


def ssim_diversity(images: Tensor, pairs: int = 200, seed: int = 0) -> float:
    """Mean structural similarity of random pairs, at 128 x 128: the lower, the more diverse; 1 if all are one image.

    Args:
        images: B1HW in [0, 1], at least 2.
        pairs: different pairs drawn; all there are, if they are fewer.
        seed: of the draw.

    Raises:
        ValueError: for fewer than 2 images.

    Source: Wang et al. 2004, IEEE TIP 13:600, as in MONAI.
    """
    if len(images) < 2:
        raise ValueError(f"pairs need at least 2 images; got {len(images)}.")
    images = check_images(images)
    number = np.arange(len(images))
    before = number * (number - 1) // 2  # pairs whose second image comes earlier
    count = len(images) * (len(images) - 1) // 2
    drawn = np.random.default_rng(seed).choice(count, min(pairs, count), replace=False)
    metric = SSIMMetric(spatial_dims=2, data_range=1.0)
    for part in np.array_split(drawn, -(-len(drawn) // 25)):
        second = np.searchsorted(before, part, side="right") - 1
        metric(*(to_side(images[index]) for index in (part - before[second], second)))
    return float(metric.aggregate())


def _draws(a: Tensor, b: Tensor, count: int, times: int, seed: int, figure: Callable[[Tensor, Tensor], Any]) -> Any:
    """A figure of ``count`` images of each set, drawn at random without replacement, so many times."""
    rng = np.random.default_rng(seed)
    subsets = [[x[rng.permutation(len(x))[:count]] for x in (a, b)] for _ in range(times)]
    return np.array([figure(*subset) for subset in subsets])


def _compare(made: Tensor, held: Tensor, known: Tensor, count: int, seed: int) -> dict[str, dict[str, float]]:
    """The figures of one set of features against held-out ones, both standardised by the known ones."""
    result = {}
    subsets = _draws(made, held, count // 2, _SUBSETS, seed, kid)
    low, high = np.quantile(subsets, [0.025, 0.975]).tolist()
    result["kid"] = {"value": kid(made, held), "low": low, "high": high}
    figures = {
        "fid": lambda a, b: [fid(a, b, known, _components(count))],
        "precision_recall": lambda a, b: precision_recall(b, a),
    }
    names = {"fid": ("fid",), "precision_recall": ("precision", "recall")}
    for figure, compute in figures.items():
        values = _draws(made, held, count, _DRAWS, seed, compute)
        for name, column in zip(names[figure], values.T):
            low, high = float(column.min()), float(column.max())
            result[name] = {"value": min(max(float(column.mean()), low), high), "low": low, "high": high}
    return result


def assess(
    generated: Tensor, heldout: Tensor, training: Tensor, seed: int = 0, network: nn.Module | None = None
) -> dict[str, Any]:
    """Judge generated images against held-out real ones, with training images in their place beside it.

    Under each figure ``generated`` is generated against held-out, and ``real`` is training against held-out: what a
    perfect generator would reach. KID has its value over all images, and the central 95 % of 100 pairs of random
    subsets of half the drawn number. FID, precision and recall depend on the number of images: they are the mean and
    the range of 10 random draws of equal numbers.

    Args:
        generated: B1HW in [0, 1].
        heldout: B1HW, real images that the generator has not seen; the same height and width.
        training: B1HW, the images that it was trained on; the same height and width.
        seed: of all draws.
        network: of the features; :class:`ScatteringFeatures` by default.

    Returns:
        figures ready for JSON, with the counts used and the name of the feature network.

    Raises:
        MGCCError: for fewer than 10 images of a kind, or sizes that differ.
    """
    sets = {"generated": generated, "heldout": heldout, "training": training}
    for name, images in sets.items():
        if len(images) < _LEAST:
            raise MGCCError(f"quality: {len(images)} {name} images found; give at least {_LEAST}")
    if len({images.shape[2:] for images in sets.values()}) > 1:
        found = ", ".join(f"{name} {images.shape[2]} x {images.shape[3]}" for name, images in sets.items())
        raise MGCCError(f"quality: images of different sizes found ({found}); bring them to one size")
    network = ScatteringFeatures() if network is None else network
    features = {name: extract(network, images) for name, images in sets.items()}
    made, held, known = (standardise(part, features["training"]) for part in features.values())
    count = min(map(len, sets.values()))
    compared = [_compare(part, held, known, count, seed) for part in (made, known)]
    result: dict[str, Any] = {
        "feature_network": getattr(network, "name", type(network).__name__),
        "features": known.shape[1],
        "fid_components": _components(count),
        "images": {name: len(images) for name, images in sets.items()},
        "drawn": {"images": count, "draws": _DRAWS, "kid_images": count // 2, "kid_draws": _SUBSETS, "seed": seed},
    }
    for name in compared[0]:
        result[name] = {"generated": compared[0][name], "real": compared[1][name]}
    result["ssim"] = {name: ssim_diversity(images, seed=seed) for name, images in sets.items()}
    for direction in DIRECTIONS:
        ratios = [power_ratio(part, heldout, direction) for part in (generated, training)]
        name = "power_ratio" if direction == "all" else f"power_ratio_{direction}"
        result[name] = dict(zip(("generated", "real"), ratios))
    for name, measure in (
        ("power_bands", power_bands),
        ("intensity", intensity_statistics),
        ("speckle", speckle_statistics),
    ):
        result[name] = {kind: measure(images) for kind, images in sets.items()}
    return result
