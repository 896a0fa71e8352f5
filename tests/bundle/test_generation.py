"""Stage 1 as a user calls it: images from images, each stage alone and all of them by one command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mgcc_monai.data.contents import image_sha256
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import LatentDiffusionPipeline, manifest
from mgcc_monai.networks import Autoencoder
from mgcc_monai.weights import load_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module")
def many_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy phantoms: enough held-out images for the audit."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(str(folder), count=70, seed=5, label_fraction=0.5, size=(160, 200))
    return folder


@pytest.fixture(scope="module")
def trained(many_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an autoencoder and a denoiser that were trained for two iterations."""
    import monai.bundle

    bundle = tmp_path_factory.mktemp("trained") / "bundle"
    shutil.copytree(REPOSITORY / "bundle", bundle, ignore=shutil.ignore_patterns("*.pt", "breast", "runs"))
    output = bundle.parent / "runs"
    for name in ("train_autoencoder.json", "train_diffusion.json"):
        monai.bundle.run(
            run_id="training",
            config_file=[str(bundle / "configs" / name), str(TINY)],
            logging_file=False,
            bundle_root=str(bundle),
            dataset_dir=str(many_phantoms),
            output_dir=str(output),
        )
    return output


@pytest.fixture
def output(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained folder, where ``run`` writes."""
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


def blurred(pipeline: LatentDiffusionPipeline, images: torch.Tensor) -> torch.Tensor:
    """What an autoencoder that was trained would do to images."""
    return torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


def tensors_of(path: Path) -> list[torch.Tensor]:
    """All tensors of a checkpoint, in order."""
    found: list[torch.Tensor] = []

    def walk(thing: object) -> None:
        if isinstance(thing, torch.Tensor):
            found.append(thing)
        elif isinstance(thing, dict):
            [walk(value) for value in thing.values()]
        elif isinstance(thing, list | tuple):
            [walk(value) for value in thing]

    walk(load_checkpoint(path))
    return found


def test_what_training_leaves_is_what_diffusers_reads(trained: Path) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(trained / "diffusion" / "pipeline", subfolder="vae")
    unet = diffusers.UNet2DModel.from_pretrained(trained / "diffusion" / "pipeline", subfolder="unet")
    assert len(vae.config.latents_std) == vae.config.latent_channels == unet.config.in_channels
    assert min(vae.config.latents_std) > 0
    pipeline = LatentDiffusionPipeline.from_pretrained(str(trained / "diffusion" / "pipeline"))
    assert unet.config.num_class_embeds == len(pipeline.config.classes) + 1 > 2
    for stage, pictures in (("autoencoder", 2), ("diffusion", 2)):
        record = json.loads((trained / stage / "run.json").read_text())
        assert record["status"] == "finished" and record["stage"] == stage
        assert len(list((trained / stage / "previews").glob("*.png"))) == pictures


def test_denoiser_learns_from_uncorrelated_latents_of_unit_deviation(trained: Path) -> None:
    latents = load_file(trained / "autoencoder" / "latents.safetensors")["latents"]
    whole = latents[: len(latents) // 2].double().transpose(0, 1).flatten(1)  # behind them come the mirrored ones
    torch.testing.assert_close(torch.cov(whole), torch.eye(len(whole)).double(), rtol=0, atol=0.01)
    torch.testing.assert_close(whole.mean(1), torch.zeros(len(whole)).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("config", "stage"), [("train_autoencoder.json", "autoencoder"), ("train_diffusion.json", "diffusion")]
)
def test_a_resumed_training_ends_with_the_same_tensors(
    run, output: Path, many_phantoms: Path, config: str, stage: str
) -> None:
    whole = tensors_of(output / stage / "checkpoints" / "checkpoint_epoch=2.pt")
    (output / stage / "checkpoints" / "checkpoint_epoch=2.pt").unlink()
    run("training", f"train_{stage}.json", dataset_dir=str(many_phantoms), resume="true")
    again = tensors_of(output / stage / "checkpoints" / "checkpoint_epoch=2.pt")
    assert len(whole) == len(again) > 20
    assert all(torch.equal(a, b) for a, b in zip(whole, again))


def test_image_size_is_width_and_height_in_both_stages(
    run, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in stage 2; tensors of stage 1 have rows first. Patches are whole images unless made smaller."""
    seen, forward = set(), Autoencoder.forward
    monkeypatch.setattr(Autoencoder, "forward", lambda self, x: (seen.add(tuple(x.shape[2:])), forward(self, x))[1])
    options = dict(dataset_dir=str(phantoms), image_size=[32, 64])
    run("training", "train_autoencoder.json", **options, autoencoder_patch_size="@image_size")
    assert seen == {(64, 32)}
    run("training", "train_diffusion.json", **options)
    pipeline = LatentDiffusionPipeline.from_pretrained(tmp_path / "runs" / "diffusion" / "pipeline")
    assert pipeline(indices=[0], num_inference_steps=1).shape[2:] == (64, 32)
    assert list(pipeline.config.image_size) == [64, 32]


def test_nothing_passes_when_the_audit_is_blind(run, output: Path, many_phantoms: Path) -> None:
    with pytest.raises(MGCCError, match="planted copies too few were found"):  # two iterations reconstruct nothing
        run("generating", "generate.json", num_images=2, dataset_dir=str(many_phantoms))
    assert {row["decision"] for row in manifest.read(output / "generated")} == {"pending"}
    assert not (output / "generated" / "gate.json").exists()
    with pytest.raises(MGCCError, match="2 of 2 images were not judged"):
        run("training", "train.json", dataset_dir=str(many_phantoms))
    assert not (output / "segmentation").exists()


def test_generate_judge_and_train_on_what_is_kept(
    run, output: Path, many_phantoms: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LatentDiffusionPipeline, "reconstruct", blurred)
    data = dict(dataset_dir=str(many_phantoms), device="cpu")  # a word, as on the command line
    with contextlib.suppress(MGCCError):  # two iterations draw no ultrasound: the gate drops every image and says so
        run("generating", "generate.json", seed=7, **data)
    rows = manifest.read(output / "generated")
    assert [row["index"] for row in rows] == list(range(12)) and {row["seed"] for row in rows} == {7}
    for row in rows:
        pixels = np.asarray(Image.open(output / "generated" / row["image"]))
        assert pixels.shape == (32, 32) and pixels.dtype == np.uint8
    gate = json.loads((output / "generated" / "gate.json").read_text())
    assert gate["generated"] == 12 == gate["kept"] + gate["dropped_quality"] + gate["dropped_copies"]
    assert min(gate["memorisation"]["recall"].values()) >= 0.95
    shown = capsys.readouterr().out
    assert "planted copies found" in shown and "PSNR" in shown

    manifest.write(output / "generated", [{**row, "decision": "keep", "reason": ""} for row in rows])
    run("training", "train.json", **data)
    record = json.loads((output / "segmentation" / "run.json").read_text())
    assert record["generated_fraction"] == 1.0 and record["generated_images"] == 12
    run("training", "train.json", generated_fraction=0.5, **data)
    record = json.loads((output / "segmentation" / "run.json").read_text())
    assert record["generated_fraction"] == 0.5


def test_a_copy_among_generated_images_is_dropped_and_shown_above_its_original(
    run, output: Path, many_phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LatentDiffusionPipeline, "reconstruct", blurred)
    data = dict(dataset_dir=str(many_phantoms), device="cpu")
    with contextlib.suppress(MGCCError):
        run("generating", "generate.json", seed=7, **data)
    folder = output / "generated"
    listed = json.loads((many_phantoms / "dataset.json").read_text())["training"][3]["image"]
    original = Image.open(many_phantoms / listed).resize((32, 32), Image.Resampling.BILINEAR)
    rows = manifest.read(folder)
    original.save(folder / rows[5]["image"])
    rows[5]["sha256"] = image_sha256(np.asarray(original))
    manifest.write(folder, rows)
    with contextlib.suppress(MGCCError):  # the others are no ultrasound, and dropped too
        run("evaluating", "generate.json", "evaluate_generation.json", **data)
    copies = json.loads((folder / "gate.json").read_text())["memorisation"]["copies_generated"]
    assert copies >= 1 and manifest.read(folder)[5]["reason"] == "copy of a training image"
    sheet = np.asarray(Image.open(folder / "copies.png").convert("L"), dtype=float)
    cells = [slice(4 + 36 * place, 36 + 36 * place) for place in range(min(copies, 8))]  # of 32 pixels, 4 apart
    alike = [np.corrcoef(sheet[4:36, cell].ravel(), sheet[40:72, cell].ravel())[0, 1] for cell in cells]
    assert max(alike) > 0.9, "the copy above what it copies"


def test_single_images_are_made_again(run, output: Path, many_phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatentDiffusionPipeline, "reconstruct", blurred)
    pipeline = LatentDiffusionPipeline.from_pretrained(str(output / "diffusion" / "pipeline"))
    wanted = pipeline(indices=[0, 6], seed=7, num_inference_steps=2)
    with pytest.raises(MGCCError, match="passed the gate"):
        run("generating", "generate.json", seed=7, indices=[0, 6], dataset_dir=str(many_phantoms))
    rows = manifest.read(output / "generated")
    assert [row["index"] for row in rows] == [0, 6]
    for row, image in zip(rows, wanted):
        pixels = np.asarray(Image.open(output / "generated" / row["image"]), dtype=np.float32)
        assert np.abs(pixels - image[0].numpy() * 255).max() <= 0.5 + 1e-3


def test_fit_does_every_stage_once(many_phantoms: Path, bundle: Path, tmp_path: Path) -> None:
    (bundle / "configs" / "presets" / "tiny.yaml").write_text(TINY.read_text())
    words = [sys.executable, "-m", "mgcc_monai", "fit", "--dataset_dir", str(many_phantoms), "--output_dir", "out"]
    words += ["--preset", "tiny", "--bundle_root", str(bundle)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert first.returncode == 1 and "planted copies too few were found" in first.stderr, first.stderr[-2000:]
    assert "Stage generate failed (exit code 1)" in first.stderr and "Traceback" not in first.stderr
    again = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "[1/5] train_autoencoder: done before, skipped" in again.stdout
    assert "[2/5] train_diffusion: done before, skipped" in again.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"diffusion_channels": [30, 32]}, "--diffusion_channels [30, 32]: give multiples of 32."),
        ({"diffusion_attention": [True]}, "--diffusion_attention [True]: 1 levels, --diffusion_channels has 2"),
        ({"diffusion_channels": [32] * 5, "diffusion_attention": [False] * 5}, "give two multiples of 64"),
    ],
)
def test_a_denoiser_that_cannot_be_is_refused(run, output: Path, many_phantoms: Path, options, told) -> None:
    before = sorted(output.rglob("*"))
    with pytest.raises(MGCCError) as error:
        run("training", "train_diffusion.json", dataset_dir=str(many_phantoms), **options)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion"])
def test_another_split_is_refused(run, output: Path, phantoms: Path, stage: str) -> None:
    config = {"autoencoder": "train_diffusion.json", "diffusion": "generate.json"}[stage]
    before = sorted(output.rglob("*"))
    with pytest.raises(MGCCError) as error:
        run({"autoencoder": "training", "diffusion": "generating"}[stage], config, dataset_dir=str(phantoms))
    assert "another dataset" in str(error.value) and "\n" not in str(error.value)
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_images": 0}, ["num_images"]),
        ({"inference_scheduler": "DPMSolverMultistepSchedular"}, ["DPMSolverMultistepScheduler"]),
        ({"class_labels": "benignant"}, ["benignant"]),
    ],
)
def test_what_cannot_be_generated_is_refused(
    run, output: Path, many_phantoms: Path, options: dict, words: list
) -> None:
    with pytest.raises(MGCCError) as error:
        run("generating", "generate.json", dataset_dir=str(many_phantoms), **options)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert not (output / "generated" / "manifest.jsonl").exists()
