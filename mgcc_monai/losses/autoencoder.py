"""The training loss of the autoencoder: what the picture loses, and how far the latents are from a normal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import JukeboxLoss, SSIMLoss
from torch import nn

__all__ = ["AutoencoderLoss", "judge", "kl_divergence"]


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Divergence of normals from the standard normal, averaged over the elements of the latents.

    Args:
        mean: means of the posterior, BCHW.
        logvar: logarithms of its variances, BCHW.

    Source:
        Kingma and Welling 2014 (arXiv 1312.6114), appendix B.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def judge(discriminator: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return a discriminator's verdict on each patch; that of MONAI puts the features of its layers before it."""
    found = discriminator(image)
    return found[-1] if isinstance(found, list) else found


class AutoencoderLoss(nn.Module):
    """L1 + weighted SSIM, spectral amplitude, KL and, once a handler switches it on, patch adversarial loss.

    Args:
        ssim_weight: weight of 1 - SSIM.
        spectral_weight: weight of the squared difference of the Fourier amplitudes; it asks for speckle as strong as
            the image's even where its place is lost.
        kl_weight: weight of the KL divergence, averaged over the latents' elements.
        adversarial_weight: weight of the adversarial loss.
        discriminator: judges patches of images B1HW; None for no adversarial loss.
        adversarial: a :class:`monai.losses.PatchAdversarialLoss`.
        data_range: largest minus smallest intensity of the images.

    Source:
        Rombach et al. 2022 (arXiv 2112.10752), appendix G; Wang et al. 2004 (SSIM); Dhariwal et al. 2020
        (arXiv 2005.00341), section 3.3 (spectral).
    """

    def __init__(
        self,
        ssim_weight: float = 1.0,
        spectral_weight: float = 1.0,
        kl_weight: float = 1e-6,
        adversarial_weight: float = 0.0,
        discriminator: nn.Module | None = None,
        adversarial: nn.Module | None = None,
        data_range: float = 2.0,
    ) -> None:
        super().__init__()
        self.weights = {"l1": 1.0, "ssim": ssim_weight, "spectral": spectral_weight, "kl": kl_weight}
        self.ssim = SSIMLoss(spatial_dims=2, data_range=data_range)
        self.spectral = JukeboxLoss(spatial_dims=2)
        self.adversarial_weight = float(adversarial_weight)
        self.adversarial = adversarial
        self.adversarial_active = False
        self._discriminator = [discriminator]  # in a list, so that its weights are not the loss's own
        self.parts: dict[str, float] = {}

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
            "ssim": self.ssim(reconstruction, image),
            "spectral": self.spectral(reconstruction, image),
            "kl": kl_divergence(mean, logvar),
        }
        loss = sum(self.weights[name] * term for name, term in terms.items())
        if self.adversarial_active and self._discriminator[0] is not None:
            judged = judge(self._discriminator[0], reconstruction)
            terms["adversarial"] = self.adversarial(judged, target_is_real=True, for_discriminator=False)
            loss = loss + self.adversarial_weight * terms["adversarial"]
        self.parts = {name: float(term.detach()) for name, term in terms.items()}
        return loss
