"""From image files to the batches of a training."""

from mgcc_monai.data.datalist import load_datalist
from mgcc_monai.data.items import (
    embedded_phantoms,
    evaluation_items,
    generated_share,
    held_out_items,
    images_to_segment,
    mixed_items,
    novel_items,
    unlabeled_items,
)
from mgcc_monai.data.latents import class_mix, class_names, encode_latents, held_out_draws, latent_items
from mgcc_monai.data.sampler import CyclicSampler, ReplayableDataset, TwoStreamLoader
from mgcc_monai.data.ultrasound import UltrasoundReader
from mgcc_monai.data.writer import mask_name, mask_writer

__all__ = [
    "CyclicSampler",
    "ReplayableDataset",
    "TwoStreamLoader",
    "class_mix",
    "class_names",
    "UltrasoundReader",
    "embedded_phantoms",
    "encode_latents",
    "evaluation_items",
    "generated_share",
    "held_out_draws",
    "held_out_items",
    "images_to_segment",
    "latent_items",
    "load_datalist",
    "mask_name",
    "mask_writer",
    "mixed_items",
    "novel_items",
    "unlabeled_items",
]
