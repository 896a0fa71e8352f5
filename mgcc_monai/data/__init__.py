"""From image files to the batches of a training."""

from mgcc_monai.data.datalist import load_datalist
from mgcc_monai.data.items import embedded_phantoms, evaluation_items, images_to_segment, unlabeled_items
from mgcc_monai.data.sampler import CyclicSampler, ReplayableDataset, TwoStreamLoader
from mgcc_monai.data.ultrasound import UltrasoundReader

__all__ = [
    "CyclicSampler",
    "ReplayableDataset",
    "TwoStreamLoader",
    "UltrasoundReader",
    "embedded_phantoms",
    "evaluation_items",
    "images_to_segment",
    "load_datalist",
    "unlabeled_items",
]
