"""From noise to images: the trained autoencoder and denoiser of stage 1 as one diffusers pipeline."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin, UNet2DModel
from diffusers.utils import logging
from monai.networks.utils import eval_mode
from PIL import Image

from mgcc_monai.data.latents import class_shares
from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.generation.schedulers import new_scheduler
from mgcc_monai.networks import autoencoder
from mgcc_monai.options import whole
from mgcc_monai.progress import progress_bar
from mgcc_monai.security.weights import list_folder, verify_folder
from mgcc_monai.seeds import torch_seed

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

    Args:
        vae: the autoencoder, for images in [-1, 1]; its config holds ``latents_mean`` and ``latents_std``.
        unet: the denoiser; class-conditional where it has ``num_class_embeds``, the last of which is the null class.
        scheduler: the default sampler.
        classes: names of the classes, in order; none for an unconditional denoiser.
        class_mix: share of each class; equal shares where it is empty.
        image_size: height and width in pixels.
        provenance: where the weights are from: ``dataset_hash``, ``autoencoder`` and such; plain values.

    Raises:
        MGCCError: when the parts do not fit each other.

    Source:
        Rombach et al. 2022 (arXiv 2112.10752); Ho and Salimans 2022 (arXiv 2207.12598), equation 6 (guidance).
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        classes: list[str] | tuple[str, ...] = (),
        class_mix: list[float] | tuple[float, ...] = (),
        image_size: list[int] | tuple[int, ...] = (256, 256),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)
        self.register_to_config(
            classes=[str(name) for name in classes],
            class_mix=[float(share) for share in class_mix],
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
        self.shares()

    def save_pretrained(self, folder: str | os.PathLike, **kwargs: Any) -> None:
        """Write the pipeline as diffusers does, and the sha256 of its weights beside them."""
        super().save_pretrained(str(folder), **kwargs)
        list_folder(folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **kwargs: Any) -> LatentDiffusionPipeline:
        """Read a pipeline that ``save_pretrained`` wrote; nothing is downloaded, and no code in the folder runs.

        Args:
            folder: where it lies.
            kwargs: passed on to diffusers.

        Raises:
            MGCCError: when the folder is missing, holds something else, or weights other than those that were saved.
        """
        index = Path(folder) / "model_index.json"
        if not index.is_file():
            raise MGCCError(f"{folder}: there is no {index.name} in it; give the folder of a trained pipeline.")
        if not _is_ours(index, cls.__name__):
            raise MGCCError(f"{index}: describes no {cls.__name__}; give the folder of a pipeline trained here.")
        verify_folder(folder)
        options = {"local_files_only": True, "use_safetensors": True, "low_cpu_mem_usage": False, **kwargs}
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # of three files
        try:
            return super().from_pretrained(str(folder), **options)
        except Exception as error:
            reason = one_line(error)
            raise MGCCError(f"{folder}: cannot be read as a pipeline ({reason}); copy or train it again.") from None
        finally:
            if shown:
                logging.enable_progress_bar()

    @torch.no_grad()
    def __call__(
        self,
        indices: int | Sequence[int] = (0,),
        seed: int = 0,
        class_labels: str | int | Sequence[str | int] | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 1.0,
        class_mix: Sequence[float] | None = None,
        batch_size: int = 16,
        scheduler: str | SchedulerMixin | None = None,
        output_type: str = "pt",
        progress: bool = False,
    ) -> Any:
        """Draw images.

        Args:
            indices: which images, from 0; in any order, and one may come twice.
            seed: seed of all images.
            class_labels: name or number of the class, of all images or of each; None draws by ``class_mix``.
            num_inference_steps: steps of the sampler.
            guidance_scale: weight of the class against the null class; 1 takes the class as it is.
            class_mix: share of each class; None takes the model's.
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
        indices = [whole(index, "indices", 0) for index in ([indices] if np.ndim(indices) == 0 else indices)]
        if not indices:
            raise MGCCError("indices: no image is asked for; name at least one.")
        if guidance_scale != 1 and not self.config.classes:
            raise MGCCError(f"guidance_scale {guidance_scale}: the model knows no classes to guide by; give 1.")
        numbers = self.class_numbers(indices, seed, class_labels, class_mix)
        size = self.group_size(batch_size)
        images = []
        with (
            eval_mode(self.vae, self.unet),
            progress_bar(total=len(indices), unit="image", disable=not progress) as bar,
        ):
            for first in range(0, len(indices), size):
                places = list(range(first, min(first + size, len(indices))))
                group = places + places[-1:] * (size - len(places))
                labels = None if numbers is None else torch.tensor([numbers[k] for k in group], device=self.device)
                sampler = new_scheduler(scheduler, self.scheduler, num_inference_steps, self.device)
                latents = self._sample([_generator(seed, indices[k]) for k in group], labels, sampler, guidance_scale)
                images.append(self.decode(latents)[: len(places)].cpu())
                bar.update(len(places))
        found = torch.cat(images)
        if not bool(torch.isfinite(found).all()):
            raise MGCCError("The model gives values that are not numbers; train it again, or give another scheduler.")
        if output_type == "pt":
            return found
        return [Image.fromarray(grey) for grey in (found[:, 0] * 255).round().to(torch.uint8).numpy()]

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalised latents BCHW (posterior means) of images B1HW in [0, 1], on their device."""
        with eval_mode(self.vae):
            latents = autoencoder.encode(self.vae, images.to(self.vae.device) * 2 - 1).mode()
        mean, std = self._scale(latents)
        return ((latents - mean) / std).to(images.device)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the images B1HW in [0, 1] of normalised latents BCHW, on their device."""
        mean, std = self._scale(latents)
        with eval_mode(self.vae):
            images = autoencoder.decode(self.vae, (latents * std + mean).to(self.vae.device))
        return (images / 2 + 0.5).clamp(0, 1).to(latents.device)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the autoencoder keeps of images B1HW in [0, 1]: the best that the model could draw of them."""
        return self.decode(self.encode(images))

    def group_size(self, batch_size: int = 16) -> int:
        """Return how many images the networks see at a time: 4 on a CPU, where more gain little, else the batch."""
        size = whole(batch_size, "batch_size", 1)
        return size if self.device.type != "cpu" else _CPU_GROUP

    def shares(self, class_mix: Sequence[float] | None = None) -> list[float]:
        """Return the share of each class, which add up to 1: the given ones, else the model's, else equal ones.

        Raises:
            MGCCError: when they are not one number a class, or negative.
        """
        return class_shares(self.config.class_mix if class_mix is None else class_mix, self.config.classes)

    def class_numbers(
        self,
        indices: Sequence[int],
        seed: int = 0,
        class_labels: str | int | Sequence[str | int] | None = None,
        class_mix: Sequence[float] | None = None,
    ) -> list[int] | None:
        """Return the number of the class of each image, None where the model knows none; arguments as of a call.

        Raises:
            MGCCError: for a class that the model does not know, or a wrong number of them.
        """
        names, seed, shares = self.config.classes, whole(seed, "seed", 0), self.shares(class_mix)
        if not names:
            if class_labels is not None:
                raise MGCCError(f"class_labels {class_labels}: the model knows no classes; leave them out.")
            return None
        if class_labels is None:
            limits = np.cumsum(shares)[:-1]
            draws = [np.random.default_rng([seed, _CLASS, index]).random() for index in indices]
            return [int(np.searchsorted(limits, draw, side="right")) for draw in draws]
        labels = [class_labels] * len(indices) if np.ndim(class_labels) == 0 else list(class_labels)
        if len(labels) != len(indices):
            raise MGCCError(f"class_labels: {len(labels)} for {len(indices)} images; give one, or one an image.")
        for label in labels:
            if label not in names and label not in range(len(names)):
                raise MGCCError(f"class_labels: '{label}' is no class of the model; they are {', '.join(names)}.")
        return [names.index(label) if label in names else int(label) for label in labels]

    def fingerprint(self) -> str:
        """Return 16 hex digits that stand for the weights and the scale of the latents."""
        digest = hashlib.sha256(json.dumps([self.vae.config.latents_mean, self.vae.config.latents_std]).encode())
        for part in (self.vae, self.unet):
            for name, tensor in sorted(part.state_dict().items()):
                values = tensor.detach().cpu().contiguous().numpy()
                digest.update(f"{name}:{values.dtype}:{values.shape}:".encode() + values.tobytes())
        return digest.hexdigest()[:16]

    def _sample(self, generators: list[torch.Generator], labels: Any, sampler: Any, guidance_scale: float) -> Any:
        """Go from noise to normalised latents."""
        config = self.unet.config
        sides = [config.sample_size] * 2 if isinstance(config.sample_size, int) else list(config.sample_size)
        noise = [torch.randn(config.in_channels, *sides, generator=generator) for generator in generators]
        latents = torch.stack(noise).to(self.device) * sampler.init_noise_sigma
        draws = {"generator": generators} if "generator" in inspect.signature(sampler.step).parameters else {}
        for timestep in sampler.timesteps:
            seen = sampler.scale_model_input(latents, timestep)
            predicted = self.unet(seen, timestep, class_labels=labels, return_dict=False)[0]
            if labels is not None and guidance_scale != 1:
                null = torch.full_like(labels, len(self.config.classes))
                unguided = self.unet(seen, timestep, class_labels=null, return_dict=False)[0]
                predicted = unguided + guidance_scale * (predicted - unguided)
            latents = sampler.step(predicted, timestep, latents, **draws).prev_sample
        return latents

    def _scale(self, latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        config = self.vae.config
        return tuple(latents.new_tensor(values)[:, None, None] for values in (config.latents_mean, config.latents_std))


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(torch_seed(seed, _NOISE, index))


def _is_ours(index: Path, name: str) -> bool:
    """Whether a ``model_index.json`` is of this pipeline, all of whose parts are of diffusers."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        parts = [content[part] for part in ("vae", "unet", "scheduler")]
        kinds = [kind for library, kind in parts if library == "diffusers"]
        return content["_class_name"] == name and kinds[:2] == ["AutoencoderKL", "UNet2DModel"] and len(kinds) == 3
    except (ValueError, KeyError, TypeError):
        return False
