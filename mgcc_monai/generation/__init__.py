"""From trained networks to generated images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "latents": ["class_proportions", "class_names", "encode_latents", "fixed_noise_items", "latent_items"],
        "manifest": ["kept_images"],
        "pipeline": ["LatentDiffusionPipeline"],
        "sample": ["check_request", "generate"],
        "storage": [
            "model_hash",
            "load_autoencoder",
            "load_pipeline",
            "save_autoencoder",
            "save_pipeline",
            "weights_hash",
        ],
    },
)
