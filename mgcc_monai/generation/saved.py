"""What may be written of a pipeline and read again: checked weights of safetensors, and parts that fit them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging

from mgcc_monai.errors import MGCCError
from mgcc_monai.weights import verify_folder

__all__ = [
    "DTYPES",
    "check_dtype",
    "check_load_options",
    "check_save_options",
    "check_saved",
    "check_scale",
    "fingerprint",
    "quietly",
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_UNCHECKED = {"use_safetensors": True, "use_flashpack": False, "custom_pipeline": None}  # any other value is unsafe


def check_save_options(options: Mapping[str, Any]) -> None:
    """Refuse options of ``save_pretrained`` by which something else is written than one checked file a network."""
    wrong = [f"{name}={value}" for name, value in options.items() if value]
    wrong += ["safe_serialization=False"] * (not options.get("safe_serialization", True))
    wrong = [option for option in wrong if option != "safe_serialization=True"]
    if wrong:
        raise MGCCError(f"save_pretrained, {', '.join(wrong)}: could not be read again; leave it out, for safetensors.")


def check_load_options(options: Mapping[str, Any]) -> None:
    """Refuse options of ``from_pretrained`` that read unchecked weights, run code, or are no dtype of ours."""
    for name, value in _UNCHECKED.items():
        if options.get(name, value) != value:
            raise MGCCError(f"from_pretrained, {name}={options[name]}: reads what is not checked; leave it out.")
    for name in ("torch_dtype", "dtype"):
        kinds = options.get(name)
        for kind in kinds.values() if isinstance(kinds, Mapping) else [kinds]:
            if kind is not None:
                check_dtype(kind, name)


def check_dtype(dtype: Any, name: str = "dtype") -> None:
    """Refuse a type of numbers in which the networks cannot compute."""
    if dtype not in DTYPES:
        raise MGCCError(f"{name} {dtype}: give one of {', '.join(map(str, DTYPES))}.")


def check_saved(folder: str | os.PathLike, kind: str) -> dict[str, Any]:
    """Check that a folder holds a pipeline of this class, all of whose parts are of diffusers, and its weights.

    Returns:
        what version 0.1 wrote under another name.
    """
    index = Path(folder) / "model_index.json"
    if not index.is_file():
        raise MGCCError(f"{folder}: there is no {index.name} in it; give the folder of a trained pipeline.")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        parts = [content[part] for part in ("vae", "unet", "scheduler")]
        kinds = [part for library, part in parts if library == "diffusers"]
        ours = content["_class_name"] == kind and kinds[:2] == ["AutoencoderKL", "UNet2DModel"] and len(kinds) == 3
    except (ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise MGCCError(f"{index}: describes no {kind}; give the folder of a pipeline trained here.")
    verify_folder(folder)
    return {"class_proportions": content["class_mix"]} if "class_mix" in content else {}


@contextmanager
def quietly(warnings: bool) -> Iterator[None]:
    """Silence diffusers' progress bar over three files; and its ``warnings``, for names that version 0.1 wrote."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if warnings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def check_scale(vae: AutoencoderKL, folder: str | os.PathLike) -> None:
    """Refuse an autoencoder with latents of another scale than that of a folder, whose denoiser learned those."""
    saved = AutoencoderKL.load_config(str(Path(folder) / "vae"))
    for name in ("latents_mean", "latents_std"):
        if list(vae.config[name]) != list(saved.get(name) or ()):
            raise MGCCError(f"vae: has other {name} than {folder}, whose denoiser learned those; leave it out.")


def fingerprint(vae: Any, unet: Any) -> str:
    """Return 16 hex digits that stand for the weights, of any dtype, and the scale of the latents."""
    digest = hashlib.sha256(json.dumps([vae.config.latents_mean, vae.config.latents_std]).encode())
    for part in (vae, unet):
        for name, tensor in sorted(part.state_dict().items()):
            if tensor.is_meta:
                raise MGCCError("fingerprint: the weights are offloaded one by one; use enable_model_cpu_offload.")
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name}:{str(values.dtype).split('.')[1]}:{tuple(values.shape)}:".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
