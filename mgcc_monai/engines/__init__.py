"""What the stock ignite engines of MONAI need for the stages of MGCC."""

from mgcc_monai.engines.diffusion import DiffusionPrepareBatch
from mgcc_monai.engines.prepare_batch import TwoStreamPrepareBatch

__all__ = [
    "DiffusionPrepareBatch",
    "TwoStreamPrepareBatch",
]
