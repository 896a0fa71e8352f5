"""The gate between stage 1 and stage 2: quality, copies, and a decision for every generated image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgcc_monai.data.formats.images import read_image
from mgcc_monai.distributed import is_main_process
from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.files import write_json
from mgcc_monai.gate.limits import QualityGate
from mgcc_monai.gate.memorisation import audit
from mgcc_monai.gate.quality import assess
from mgcc_monai.gate.table import LEAST, format_gate
from mgcc_monai.generation import manifest
from mgcc_monai.pictures import write_sheet

__all__ = ["apply_gate"]

logger = logging.getLogger(__name__)

GATE, SAMPLES, COPIES = "gate.json", "samples.png", "copies.png"


@plain_os_errors()
def apply_gate(
    folder: str | Path,
    pipeline: Any,
    training: Sequence[Mapping[str, Any]],
    held_out: Sequence[Mapping[str, Any]],
    novel: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Decide for each generated image whether stage 2 may have it, and measure those that it may.

    Images unlike any training image are dropped for quality, copies of training images as copies; what is left is
    compared with held-out real images. Nothing passes when the audit cannot find the copies that are planted.
    Writes the decisions into the manifest, ``gate.json``, and the sheets ``samples.png`` and, of images with the
    training images that they copy below them, ``copies.png``.

    Args:
        folder: the generated images and their manifest.
        pipeline: the :class:`mgcc_monai.generation.LatentDiffusionPipeline` that made them.
        training: the images that it learned from, items with ``image`` 1HW in [-1, 1].
        held_out: real images that it has not seen, likewise.
        novel: further real images that it has not seen, to count the audit's false alarms on.
        seed: of the planted copies and of every draw.

    Returns:
        what ``gate.json`` holds.

    Raises:
        MGCCError: when there are too few images to judge, or the audit failed.
    """
    if not is_main_process():
        return {}
    folder = Path(folder)
    rows = [{**row, "decision": "pending", "reason": ""} for row in manifest.read(folder)]
    manifest.write(folder, rows)  # an earlier decision does not outlive a failed audit
    for name in (GATE, SAMPLES, COPIES):
        (folder / name).unlink(missing_ok=True)
    made = torch.from_numpy(np.stack([read_image(folder / row["image"]) for row in rows])[:, None] / np.float32(255))
    known, unseen, others = (_stack(images, made.shape[2:]) for images in (training, held_out, novel))
    logger.info("Judging %d generated images by %d held-out ones ...", len(made), len(unseen))
    decisions = QualityGate.fit(known, pipeline.reconstruct).decide(made)
    report = audit(made, known, unseen, pipeline.reconstruct, seed=seed, novel=others)
    copies = report.pop("images")
    judged = [_decision(row, quality, copy) for row, quality, copy in zip(rows, decisions, copies)]
    keep = torch.tensor([row["decision"] == "keep" for row in judged])
    rebuilt = torch.cat([pipeline.reconstruct(batch) for batch in unseen.split(16)]).clamp(0, 1)
    result = {
        "generated": len(rows),
        "kept": int(keep.sum()),
        "dropped_quality": sum(not quality.keep for quality in decisions),
        "dropped_copies": sum(quality.keep and copy["flagged"] for quality, copy in zip(decisions, copies)),
        "reconstruction_psnr": float(-10 * (rebuilt - unseen).square().flatten(1).mean(1).log10().mean()),
        "memorisation": report,
        "quality": None,
    }
    if min(int(keep.sum()), len(unseen)) >= LEAST:
        result["quality"] = assess(made[keep], unseen, known, seed=seed)
    manifest.write(folder, judged)
    write_json(folder / GATE, result)
    write_sheet(folder / SAMPLES, made[keep][:32] if keep.any() else made[:32], 8)
    flagged = [index for index, copy in enumerate(copies) if copy["flagged"]][:8]
    if flagged:
        pairs = [made[flagged], known[[copies[index]["nearest_reference"] for index in flagged]]]
        write_sheet(folder / COPIES, torch.cat(pairs), len(flagged))
    print(format_gate(result), flush=True)
    if not keep.any():
        raise MGCCError(
            f"{folder}: none of {len(rows)} generated images passed the gate ({result['dropped_quality']} dropped for "
            f"quality, {result['dropped_copies']} as copies); look at samples.png and train the denoiser longer."
        )
    return result


def _stack(items: Sequence[Mapping[str, Any]], size: Sequence[int]) -> torch.Tensor:
    images = [(torch.as_tensor(item["image"]).float() + 1) / 2 for item in items]
    for image in images:
        if tuple(image.shape) != (1, *size):
            raise MGCCError(
                f"generated images have {size[0]} x {size[1]} pixels, the real ones come as {tuple(image.shape)}; "
                "give the preset and --image_size that the model was trained with."
            )
    return torch.stack(images) if images else torch.zeros(0, 1, *size)


def _decision(row: Mapping[str, Any], quality: Any, copy: Mapping[str, Any]) -> dict[str, Any]:
    scores = {**quality.scores, "correlation": copy["correlation"]}
    reason = quality.reason or ("copy of a training image" if copy["flagged"] else "")
    kept = quality.keep and not copy["flagged"]
    return {**row, "scores": scores, "decision": "keep" if kept else "drop", "reason": reason}
