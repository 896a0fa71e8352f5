"""The training loss of the autoencoder: what the picture loses, and how far the latents are from a normal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mgcc_monai.losses.precision import in_float32

__all__ = ["AutoencoderLoss", "discriminator_logits", "kl_divergence", "log_spectrum", "mean_ssim", "spectral_distance"]

_WINDOW, _SIGMA = 11, 1.5  # of the SSIM, in pixels
_FLOOR = 1e-5  # power: that of rounding to 8 bits, below which there is nothing to match


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Divergence of normals from the standard normal, averaged over the elements of the latents.

    Args:
        mean: means of the posterior, BCHW.
        logvar: logarithms of its variances, BCHW.

    Source:
        Kingma and Welling 2014 (arXiv 1312.6114), appendix B.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def mean_ssim(image: torch.Tensor, other: torch.Tensor, data_range: float) -> torch.Tensor:
    """Return the mean structural similarity of two stacks, over the Gaussian windows that lie inside the images.

    A window is separable, so its means are two products of matrices: on a CPU a backward pass takes a tenth of the
    time of a convolution of one channel.

    Args:
        image: BCHW; at least 11 x 11 pixels.
        other: BCHW.
        data_range: largest minus smallest intensity.

    Returns:
        a scalar tensor.

    Raises:
        ValueError: when the images are smaller than a window.

    Source:
        Wang et al. 2004 (doi 10.1109/TIP.2003.819861), equation 13, with their window of 11 and deviation of 1.5.
    """
    if min(image.shape[2:]) < _WINDOW:
        raise ValueError(f"SSIM needs images of at least {_WINDOW} pixels a side, got {list(image.shape[2:])}.")
    down, across = (_windows(side, image) for side in image.shape[2:])

    def mean(values: torch.Tensor) -> torch.Tensor:
        return down @ values @ across.T

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    a, b = mean(image), mean(other)
    covariance = mean(image * other) - a * b
    variances = mean(image.square()) - a.square() + mean(other.square()) - b.square()
    return ((2 * a * b + c1) / (a.square() + b.square() + c1) * (2 * covariance + c2) / (variances + c2)).mean()


def _windows(side: int, like: torch.Tensor) -> torch.Tensor:
    """Return the weights of every window along a side, a row each."""
    place = torch.arange(side, dtype=like.dtype, device=like.device)
    offset = place[None] - place[: side - _WINDOW + 1, None]
    weights = torch.exp(-0.5 * ((offset - _WINDOW // 2) / _SIGMA).square()) * ((offset >= 0) & (offset < _WINDOW))
    return weights / weights.sum(1, keepdim=True)


def log_spectrum(image: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the power of each image at each spatial frequency, vertical and horizontal apart.

    The two are kept apart because ultrasound is finer along the beam than across it, and because a decoder that is
    asked for power in any direction gives it where it is cheapest, as a checkerboard of its last upsampling. The mean
    is taken off and a Hann window put on first, so that neither brightness nor borders leak into the bands.

    Args:
        image: B1HW in [-1, 1].

    Returns:
        BVF: bands of equal width from 0 to 0.5 cycles a pixel, vertical by horizontal, one for every 8 pixels of the
        side.
    """
    height, width = image.shape[2:]
    vertical = torch.hann_window(height, periodic=False, device=image.device)
    window = vertical[:, None] * torch.hann_window(width, periodic=False, device=image.device)
    detail = (image - image.mean(dim=(2, 3), keepdim=True)) * window / window.square().mean().sqrt()
    power = torch.fft.rfft2(detail[:, 0], norm="ortho").abs().square()
    members = []
    for side, frequency in ((height, torch.fft.fftfreq(height)), (width, torch.fft.rfftfreq(width))):
        bands = max(2, side // 8)
        member = nn.functional.one_hot((frequency.abs() * 2 * bands).long().clamp_max(bands - 1), bands).to(power)
        members.append(member / member.sum(0))
    return (members[0].T @ power @ members[1] + _FLOOR).log()


def spectral_distance(made: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of two stacks' spectra: as much grain each way, wherever it lies.

    Source:
        Durall et al. 2020 (arXiv 2003.01826), section 4 (matching of the azimuthally averaged power), here of its
        logarithm, so that the weak high frequencies count as much as the strong low ones, and not averaged over all
        directions.
    """
    return nn.functional.l1_loss(log_spectrum(made), log_spectrum(image))


def discriminator_logits(discriminator: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return a discriminator's verdict on each patch; that of MONAI puts the features of its layers before it."""
    found = discriminator(image)
    return found[-1] if isinstance(found, list) else found


class AutoencoderLoss(nn.Module):
    """L1 + weighted SSIM + KL, and in the detail phase spectral and patch adversarial loss besides.

    The detail phase is the last part of a training, switched on by a handler (``detail_active``): what L1 and SSIM
    cannot place they leave out, so fine grain comes back weaker than it was. The two parts ask for it by strength and
    by look, once its place has been learned.

    Args:
        ssim_weight: weight of 1 - SSIM.
        spectral_weight: weight of :func:`spectral_distance`.
        kl_weight: weight of the KL divergence, averaged over the latents' elements.
        adversarial_weight: weight of the adversarial loss.
        discriminator: judges patches of images B1HW; None for no adversarial loss.
        adversarial: a :class:`monai.losses.PatchAdversarialLoss`.
        data_range: largest minus smallest intensity of the images.

    Source:
        Rombach et al. 2022 (arXiv 2112.10752), appendix G; Wang et al. 2004 (SSIM); Durall et al. 2020
        (arXiv 2003.01826; spectral).
    """

    def __init__(
        self,
        ssim_weight: float = 1.0,
        spectral_weight: float = 0.4,
        kl_weight: float = 1e-6,
        adversarial_weight: float = 0.0,
        discriminator: nn.Module | None = None,
        adversarial: nn.Module | None = None,
        data_range: float = 2.0,
    ) -> None:
        super().__init__()
        self.weights = {"l1": 1.0, "ssim": ssim_weight, "kl": kl_weight}
        self.weights |= {"spectral": spectral_weight, "adversarial": adversarial_weight}
        self.data_range = data_range
        self.adversarial = adversarial
        self.detail_active = False
        self._discriminator = [discriminator]  # in a list, so that its weights are not the loss's own
        self.parts: dict[str, float] = {}

    @in_float32
    def forward(self, output: Sequence[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        """Compute the loss; its parts, before their weights, stand in ``parts`` afterwards.

        Args:
            output: reconstruction B1HW, mean and logvar of the latents BCHW.
            image: images B1HW.

        Returns:
            a scalar tensor.
        """
        reconstruction, mean, logvar = output
        terms = {
            "l1": nn.functional.l1_loss(reconstruction, image),
            "ssim": 1 - mean_ssim(reconstruction, image, self.data_range),
            "kl": kl_divergence(mean, logvar),
        }
        if self.detail_active:
            terms["spectral"] = spectral_distance(reconstruction, image)
        if self.detail_active and self._discriminator[0] is not None:
            judged = discriminator_logits(self._discriminator[0], reconstruction)
            terms["adversarial"] = self.adversarial(judged, target_is_real=True, for_discriminator=False)
        self.parts = {name: float(term.detach()) for name, term in terms.items()}
        return sum(self.weights[name] * term for name, term in terms.items())
