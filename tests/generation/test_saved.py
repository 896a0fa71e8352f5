"""Laws of saving: what is written is read again, and what could not be is refused before anything is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "options",
    [
        {"safe_serialization": False},
        {"safe_serialization": None},
        {"variant": "fp16"},
        {"max_shard_size": "20KB"},
        {"max_shard_size": 20000},
        {"push_to_hub": True},
        {"push_to_hub": True, "repo_id": "someone/something"},
        {"use_flashpack": True},
        {"safe_serialisation": False, "dtype": "bfloat16"},
    ],
    ids=str,
)
def test_an_option_that_writes_something_else_is_refused_at_once(pipeline, tmp_path, monkeypatch, options):
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.create_repo", lambda *a, **k: pytest.fail("went online"))
    with pytest.raises(MGCCError, match="save_pretrained") as error:
        pipeline.save_pretrained(tmp_path / "pipeline", **options)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_options_that_change_nothing_are_taken(pipeline, tmp_path):
    options = {"variant": None, "max_shard_size": None, "push_to_hub": False}
    pipeline.save_pretrained(tmp_path / "pipeline", safe_serialization=True, **options)
    pipeline.save_pretrained(str(tmp_path / "pipeline"))
    assert LatentDiffusionPipeline.from_pretrained(tmp_path / "pipeline").fingerprint() == pipeline.fingerprint()


@pytest.mark.parametrize(
    "options",
    [
        {"use_safetensors": False},
        {"use_safetensors": None},
        {"use_flashpack": True},
        {"custom_pipeline": "someone/something"},
        {"custom_pipeline": "folder", "trust_remote_code": True},
        {"variant": "fp16"},
        {"scheduler": "DDIMSchedular"},
        {"unet": None},
    ],
    ids=str,
)
def test_an_option_that_reads_something_else_is_refused(saved_pipeline, options):
    with pytest.raises(MGCCError) as error:
        LatentDiffusionPipeline.from_pretrained(saved_pipeline, **options)
    assert "\n" not in str(error.value)


def test_another_autoencoder_than_the_denoiser_learned_is_refused(saved_pipeline, tmp_path):
    folder = tmp_path / "pipeline"
    shutil.copytree(saved_pipeline, folder)
    vae = AutoencoderKL.from_pretrained(str(folder / "vae"), low_cpu_mem_usage=False)
    assert LatentDiffusionPipeline.from_pretrained(folder, vae=vae).vae is vae
    vae.register_to_config(latents_std=[1.0, 2.0, 0.5, 0.9])
    with pytest.raises(MGCCError, match="vae: has other latents_std than"):
        LatentDiffusionPipeline.from_pretrained(folder, vae=vae)


def test_a_pipeline_of_version_0_1_keeps_its_class_proportions_and_no_warning_is_printed(pipeline, tmp_path, capfd):
    pipeline.save_pretrained(tmp_path / "pipeline")
    index = tmp_path / "pipeline" / "model_index.json"
    content = json.loads(index.read_text())
    content["class_mix"] = content.pop("class_proportions")
    assert len(set(content["class_mix"])) > 1, "equal shares would be the default"
    index.write_text(json.dumps(content))
    read = LatentDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    assert list(read.config.class_proportions) == content["class_mix"]
    assert read.fingerprint() == pipeline.fingerprint() and capfd.readouterr().err == ""


READ = """
import torch, mgcc_monai.generation.pipeline as ours
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({folder!r}, custom_pipeline=ours.__file__, trust_remote_code=True)
torch.save(pipe(indices=[0, 3], seed=5, num_inference_steps=2), {output!r})
"""


def test_diffusers_reads_it_with_our_class_as_custom_pipeline(pipeline, saved_pipeline, tmp_path):
    code = READ.format(folder=str(saved_pipeline), output=str(tmp_path / "images.pt"))
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}  # it copies the class there
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(torch.load(tmp_path / "images.pt"), pipeline(indices=[0, 3], seed=5, num_inference_steps=2))
    assert not [path for path in saved_pipeline.rglob("*") if path.suffix == ".py"], "no code beside weights"
