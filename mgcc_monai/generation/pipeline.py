"""From noise to images: the trained autoencoder and denoiser of stage 1 as one diffusers pipeline."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DModel
from monai.networks.utils import eval_mode
from PIL import Image

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.generation import saved
from mgcc_monai.generation.classes import class_ids, class_probabilities
from mgcc_monai.generation.schedulers import denoise, matching, new_scheduler
from mgcc_monai.networks import autoencoder
from mgcc_monai.networks.upsampling import fuse_upsampling
from mgcc_monai.parse import parse_int
from mgcc_monai.progress import progress_bar
from mgcc_monai.seeds import torch_seed
from mgcc_monai.weights import write_checksums

__all__ = ["LatentDiffusionPipeline"]

_NOISE, _CLASS = 0, 1  # what a seed is mixed for
_CPU_GROUP = 4


class LatentDiffusionPipeline(DiffusionPipeline):
    """Draw grey images with a latent diffusion model; image i is a function of (seed, i) alone.

    Its noise is drawn on the CPU by ``torch.Generator().manual_seed(n)``, where n is half of the 64 bits that
    ``numpy.random.SeedSequence([seed, 0, i])`` gives; a stochastic scheduler goes on with the same generator. Its
    class, when none is given, is drawn by ``numpy.random.default_rng([seed, 1, i])``.

    Networks round otherwise in batches of another size, and a sampler can magnify that. So they always see groups of
    one size (:meth:`group_size`), a short one being filled up with copies of its last image. Thus an image has the
    same bits whatever it is drawn with; other machines and other numbers of threads agree to rounding.

    The networks may be of any floating-point type, each of its own. Noise, sampler and images stay in float32, so that
    the type alone does not make another image; float16 may overflow, which is refused.

    Args:
        vae: the autoencoder, for images in [-1, 1]; its config holds ``latents_mean`` and ``latents_std``.
        unet: the denoiser; class-conditional where it has ``num_class_embeds``, the last of which is the null class.
        scheduler: the default sampler.
        classes: names of the classes, in order; none for an unconditional denoiser.
        class_proportions: share of each class; equal shares where it is empty.
        image_size: height and width in pixels.
        provenance: where the weights are from: ``dataset_hash``, ``autoencoder`` and such; plain values.

    Raises:
        MGCCError: when the parts do not fit each other.

    Source:
        Rombach et al. 2022 (arXiv 2112.10752); Ho and Salimans 2022 (arXiv 2207.12598), equation 6 (guidance).
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        classes: list[str] | tuple[str, ...] = (),
        class_proportions: list[float] | tuple[float, ...] = (),
        image_size: list[int] | tuple[int, ...] = (256, 256),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._trained = copy.deepcopy(scheduler)  # whose noise the denoiser learned, whatever comes in its place
        self.register_modules(vae=fuse_upsampling(vae), unet=fuse_upsampling(unet), scheduler=scheduler)
        self.register_to_config(
            classes=[str(name) for name in classes],
            class_proportions=[float(share) for share in class_proportions],
            image_size=[int(side) for side in image_size],
            provenance=dict(provenance or {}),
        )
        channels = vae.config.latent_channels
        for name in ("latents_mean", "latents_std"):
            if len(vae.config.get(name) or ()) != channels:
                raise MGCCError(f"The autoencoder's config has no {name} of {channels} numbers; train it anew.")
        if unet.config.in_channels != channels:
            found = f"latents of {unet.config.in_channels} channels, the autoencoder's have {channels}"
            raise MGCCError(f"The denoiser is for {found}; train the denoiser on this autoencoder.")
        known = (unet.config.num_class_embeds or 1) - 1
        if known != len(self.config.classes):
            raise MGCCError(f"The denoiser knows {known} classes, {len(self.config.classes)} are named; name as many.")
        if len({*self.config.classes, ""}) <= known:
            raise MGCCError(f"classes {self.config.classes}: give each class a name of its own.")
        self.class_probabilities()

    def save_pretrained(self, folder: str | os.PathLike, **kwargs: Any) -> None:
        """Write the pipeline as diffusers does, and the sha256 of its weights beside them.

        Raises:
            MGCCError: for an option of diffusers by which it would write what cannot be read again, or go online.
        """
        saved.check_save_options(kwargs)
        matching(None, self.scheduler, self._trained)
        super().save_pretrained(str(folder))
        write_checksums(folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **kwargs: Any) -> LatentDiffusionPipeline:
        """Read a pipeline that ``save_pretrained`` wrote; nothing is downloaded, and no code in the folder runs.

        Args:
            folder: where it lies.
            kwargs: passed on to diffusers: ``torch_dtype``, or parts to take instead of those in the folder.

        Raises:
            MGCCError: when the folder is missing, holds something else, or weights other than those that were saved;
                for an option that would read unchecked weights or run code, and for a part that does not fit.
        """
        earlier = saved.check_saved(folder, cls.__name__)
        saved.check_load_options(kwargs)
        options = {**earlier, "low_cpu_mem_usage": False, **kwargs, "local_files_only": True, "use_safetensors": True}
        scheduler = options.pop("scheduler", None)
        try:
            with saved.quietly(warnings=bool(earlier)):
                made = super().from_pretrained(str(folder), **options)
            saved.check_scale(made.vae, folder)
        except Exception as error:
            reason = one_line(error)
            raise MGCCError(f"{folder}: cannot be read as a pipeline ({reason}); copy or train it again.") from None
        if scheduler is not None:
            fitting = matching(scheduler, made.scheduler, made._trained)
            made.scheduler = fitting if isinstance(scheduler, str) else scheduler
        return made

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> LatentDiffusionPipeline:
        """Return another pipeline over the parts of one; what its denoiser learned stays known."""
        made = super().from_pipe(pipeline, **kwargs)
        made._trained = getattr(pipeline, "_trained", made._trained)
        return made

    @torch.no_grad()
    def __call__(
        self,
        indices: int | Sequence[int] = (0,),
        seed: int = 0,
        class_labels: str | int | Sequence[str | int] | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 1.0,
        class_proportions: Sequence[float] | None = None,
        batch_size: int = 16,
        scheduler: str | SchedulerMixin | None = None,
        output_type: str = "pt",
        progress: bool = False,
    ) -> Any:
        """Draw images.

        Args:
            indices: which images, from 0; in any order, and one may come twice.
            seed: seed of all images.
            class_labels: name of the class, of all images or of each; None draws by ``class_proportions``. Positions
                from 0 serve too where no name is a number; see :func:`mgcc_monai.generation.classes.class_ids`.
            num_inference_steps: steps of the sampler.
            guidance_scale: weight of the class against the null class; 1 takes the class as it is.
            class_proportions: share of each class; None takes the model's.
            batch_size: images at a time on a GPU; see :meth:`group_size`.
            scheduler: the sampler: an object, or the name of a class of diffusers, which gets this model's noise
                schedule; None takes the model's.
            output_type: "pt" or "pil".
            progress: show a bar.

        Returns:
            "pt": B1HW float32 in [0, 1] on the CPU. "pil": a list of 8-bit grey pictures.

        Raises:
            MGCCError: for an argument that cannot be, or a model that gives values that are not numbers.
        """
        if output_type not in ("pt", "pil"):
            raise MGCCError(f"output_type {output_type}: give pt or pil.")
        indices = [parse_int(index, "indices", 0) for index in ([indices] if np.ndim(indices) == 0 else indices)]
        if not indices:
            raise MGCCError("indices: no image is asked for; name at least one.")
        if guidance_scale != 1 and not self.config.classes:
            raise MGCCError(f"guidance_scale {guidance_scale}: the model knows no classes to guide by; give 1.")
        numbers = self.class_ids(indices, seed, class_labels, class_proportions)
        for part in (self.vae, self.unet):
            saved.check_dtype(part.dtype)
        size, device = self.group_size(batch_size), self._execution_device
        images = []
        bar = progress_bar(total=len(indices), unit="image", disable=not progress)
        with eval_mode(self.vae, self.unet), bar:
            for first in range(0, len(indices), size):
                places = list(range(first, min(first + size, len(indices))))
                group = places + places[-1:] * (size - len(places))
                labels = None if numbers is None else torch.tensor([numbers[k] for k in group], device=device)
                sampler = self.sampler(scheduler, num_inference_steps, device)
                generators = [_generator(seed, indices[k]) for k in group]
                latents = denoise(self.unet, sampler, generators, labels, guidance_scale, device)
                images.append(self.decode(latents)[: len(places)].cpu())
                bar.update(len(places))
        self.maybe_free_model_hooks()
        found = torch.cat(images)
        if output_type == "pt":
            return found
        return [Image.fromarray(grey) for grey in (found[:, 0] * 255).round().to(torch.uint8).numpy()]

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalised latents BCHW (posterior means) of images B1HW in [0, 1]; float32, on their device."""
        if not images.is_floating_point():
            raise MGCCError(f"images: are {images.dtype}; give floating-point numbers in [0, 1].")
        with eval_mode(self.vae):
            latents = autoencoder.encode(self.vae, images.float().to(self._vae_device) * 2 - 1).mode().float()
        mean, std = self._scale(latents)
        return self._finite((latents - mean) / std).to(images.device)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the images B1HW in [0, 1] of normalised latents BCHW; float32, on their device."""
        mean, std = self._scale(latents)
        with eval_mode(self.vae):
            images = autoencoder.decode(self.vae, (latents.float() * std + mean).to(self._vae_device)).float()
        return (self._finite(images) / 2 + 0.5).clamp(0, 1).to(latents.device)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the autoencoder keeps of images B1HW in [0, 1]: the best that the model could draw of them."""
        images = self.decode(self.encode(images))
        self.maybe_free_model_hooks()
        return images

    def sampler(self, scheduler: Any = None, num_inference_steps: int = 25, device: Any = "cpu") -> SchedulerMixin:
        """Return a new sampler with its steps set; arguments as of a call."""
        return new_scheduler(scheduler, self.scheduler, num_inference_steps, device, self._trained)

    def group_size(self, batch_size: int = 16) -> int:
        """Return how many images the networks see at a time: 4 on a CPU, where more gain little, else the batch."""
        size = parse_int(batch_size, "batch_size", 1)
        return size if self._execution_device.type != "cpu" else _CPU_GROUP

    def class_probabilities(self, class_proportions: Sequence[float] | None = None) -> list[float]:
        """Return the probability of each class: those given, else the model's, else equal ones.

        Raises:
            MGCCError: when they are not one number per class, or negative.
        """
        given = self.config.class_proportions if class_proportions is None else class_proportions
        return class_probabilities(given, self.config.classes)

    def class_ids(
        self,
        indices: Sequence[int],
        seed: int = 0,
        class_labels: str | int | Sequence[str | int] | None = None,
        class_proportions: Sequence[float] | None = None,
    ) -> list[int] | None:
        """Return the number of the class of each image, None where the model knows none; arguments as of a call.

        Raises:
            MGCCError: for a class that the model does not know, or a wrong number of them.
        """
        names, seed = self.config.classes, parse_int(seed, "seed", 0)
        probabilities = self.class_probabilities(class_proportions)
        if not names:
            if class_labels is not None:
                raise MGCCError(f"class_labels {class_labels}: the model knows no classes; leave them out.")
            return None
        if class_labels is None:
            draws = [np.random.default_rng([seed, _CLASS, index]).random() for index in indices]
            return [int(np.searchsorted(np.cumsum(probabilities)[:-1], draw, side="right")) for draw in draws]
        return class_ids(class_labels, names, len(indices))

    def fingerprint(self) -> str:
        """Return 16 hex digits that stand for the weights and the scale of the latents."""
        return saved.fingerprint(self.vae, self.unet)

    def _scale(self, latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale = (self.vae.config.latents_mean, self.vae.config.latents_std)
        return tuple(latents.new_tensor(values, dtype=torch.float32)[:, None, None] for values in scale)

    @property
    def _vae_device(self) -> torch.device:
        """Where the autoencoder computes: where an offloading hook takes it, else where it lies."""
        hooked = hasattr(self.vae, "_hf_hook") or hasattr(self.vae, "_diffusers_hook")
        return self._execution_device if hooked else self.vae.device

    def _finite(self, values: torch.Tensor) -> torch.Tensor:
        if not bool(torch.isfinite(values).all()):
            half = torch.float16 in (self.vae.dtype, self.unet.dtype)
            cure = "in float16 they overflow; take bfloat16" if half else "train it again, or give another scheduler"
            raise MGCCError(f"The model gives values that are not numbers; {cure}.")
        return values


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(torch_seed(seed, _NOISE, index))
