"""Networks that MONAI lacks."""

from mgcc_monai.networks.autoencoder import Autoencoder
from mgcc_monai.networks.denoiser import Denoiser
from mgcc_monai.networks.mgcc import MGCC
from mgcc_monai.networks.perturbations import Dropout, FeatureDropout, FeatureNoise, Perturbation

__all__ = ["Autoencoder", "Denoiser", "Dropout", "FeatureDropout", "FeatureNoise", "MGCC", "Perturbation"]
