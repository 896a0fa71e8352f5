"""The packed bundle in an environment of its own: what its metadata name is installed, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_monai.interop.package import NAME
from mgcc_monai.networks import MGCC

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"

LOAD = """
import torch, monai.bundle
network = monai.bundle.load({name!r}, bundle_dir={parent!r}, workflow_type="inference", device="cpu").eval()
torch.save(network(torch.linspace(-2, 2, 1024).reshape(1, 1, 32, 32)).detach(), "loaded.pt")
"""


@pytest.mark.clients
def test_with_its_requirements_alone_it_segments_trains_loads_and_exports(
    packed: Path, run_folder: Path, phantoms: Path, tmp_path: Path
):
    def run(*words: object, path: str = "") -> str:
        env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run([*map(str, words)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "env")
    run(sys.executable, "-m", "zipfile", "-e", packed, tmp_path)
    bundle = tmp_path / NAME
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    pins = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    pins |= metadata["required_packages_version"]
    needed = [f"{name}=={version}" for name, version in pins.items()]
    run(python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, *needed)
    assert "mgcc" not in run(python, "-m", "pip", "list")

    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    bundle_command = (python, "-m", "monai.bundle")
    configs = bundle / "configs"
    inferring = ("run", "inferring", "--config_file", configs / "inference.json", "--dataset_dir", "in")
    run(*bundle_command, *inferring, "--output_dir", "masks")
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3
    training = ("run", "training", "--config_file", configs / "train.json", "--dataset_dir", phantoms)
    options = ("--output_dir", "runs", "--models_dir", "models", "--max_iterations", 4, "--generated_fraction", 0)
    run(*bundle_command, *training, *options)
    assert json.loads((tmp_path / "runs" / "segmentation" / "run.json").read_text())["iterations"] == 4
    run(python, "-c", LOAD.format(name=NAME, parent=str(tmp_path)), path=str(bundle))
    network = MGCC(1, 1, (4, 4, 8, 8, 16)).eval()
    network.load_state_dict(torch.load(run_folder / "model.pt", weights_only=True))
    image = torch.linspace(-2, 2, 1024).reshape(1, 1, 32, 32)
    assert torch.equal(torch.load(tmp_path / "loaded.pt"), network(image))
    files = ("--meta_file", configs / "metadata.json", "--config_file", configs / "inference.json")
    weights = ("--ckpt_file", bundle / "models" / "model.pt")
    run(*bundle_command, "ckpt_export", "network_def", "--filepath", "m.ts", *weights, *files, path=str(bundle))
    assert torch.equal(torch.jit.load(tmp_path / "m.ts")(image), network(image))
    run(python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, "onnx", "onnxscript", "onnxruntime")
    shape = ("--input_shape", "[1,1,32,32]", "--use_ort", "False")
    run(
        *bundle_command,
        "onnx_export",
        "network_def",
        "--filepath",
        "m.onnx",
        *weights,
        *files,
        *shape,
        path=str(bundle),
    )
    assert (tmp_path / "m.onnx").stat().st_size > 100_000
