"""What a finished run came to, for the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.evaluation.table import format_table
from mgcc_monai.gate.table import format_gate

__all__ = ["show_run"]

_FILES = (
    ("diffusion/pipeline", "autoencoder and denoiser, for LatentDiffusionPipeline.from_pretrained"),
    ("diffusion/previews", "samples while it trained"),
    ("generated/samples.png", "generated images that passed the gate"),
    ("generated/manifest.jsonl", "every generated image with its scores and the decision"),
    ("segmentation/model.pt", "best weights"),
    ("segmentation/inference.json", "config that segments with them"),
    ("segmentation/run.json", "record of the training"),
    ("segmentation/tensorboard", "curves, for tensorboard --logdir"),
    ("evaluation/summary.json", "figures"),
    ("evaluation/cases.csv", "figures of each image"),
    ("masks/lesions.csv", "lesions found in the new images"),
    ("masks", "their masks"),
)


@plain_os_errors()
def show_run(output_dir: str | Path) -> str:
    """Return the table of a run's figures and the paths of what it wrote.

    Args:
        output_dir: the run's folder.

    Raises:
        MGCCError: when nothing was evaluated in it.
    """
    folder = Path(output_dir)
    summary = folder / "evaluation" / "summary.json"
    if not summary.is_file():
        raise MGCCError(f"{summary}: there is no such file; train and evaluate first, or give another --output_dir.")
    gate = folder / "generated" / "gate.json"
    lines = [format_gate(json.loads(gate.read_text())), ""] if gate.is_file() else []
    lines += [format_table(json.loads(summary.read_text())), "", "written:"]
    lines += [f"  {folder / name}  ({what})" for name, what in _FILES if (folder / name).exists()]
    return "\n".join(lines)
