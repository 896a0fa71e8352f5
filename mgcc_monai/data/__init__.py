"""Data: from image files to training batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["checks", "formats", "layouts", "phantom"],
    submod_attrs={
        "dataset": ["load_datalist"],
        "formats.reader": ["UltrasoundReader"],
        "formats.writer": ["mask_name", "mask_writer"],
        "items": [
            "embedded_phantoms",
            "evaluation_items",
            "generated_share",
            "held_out_items",
            "images_to_segment",
            "mixed_items",
            "unseen_items",
            "unlabeled_items",
            "unlabeled_stream",
        ],
        "sampler": ["ResumableSampler", "SeededCacheDataset", "TwoStreamLoader", "cyclic_loader"],
    },
)
