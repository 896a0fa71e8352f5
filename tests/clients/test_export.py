"""What is exported is the network, for any batch and size, and segments in its place."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.interop.export import FORMATS, Engine, export
from mgcc_monai.networks import MGCC

SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "openvino": ".xml"}


@pytest.fixture(scope="module")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {name: export(str(run_folder), str(folder / f"model{SUFFIXES[name]}"), name) for name in FORMATS}


@pytest.fixture(scope="module")
def network(run_folder: Path) -> MGCC:
    network = MGCC(1, 1, (4, 4, 8, 8, 16)).eval()
    network.load_state_dict(torch.load(run_folder / "model.pt", weights_only=True))
    return network


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (5, 1, 16, 112), (2, 1, 160, 48)])
@torch.no_grad()
def test_any_batch_and_size_gives_the_networks_logits(exported, network, name: str, shape: tuple[int, ...]):
    image = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found, wanted = Engine(exported[name])(image), network(image)
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, network(image.flip(3)), atol=1e-4), "the same for any image"


@pytest.mark.parametrize("name", FORMATS)
def test_its_metadata_say_how_images_are_prepared(exported, run_folder: Path, name: str):
    settings = json.loads((run_folder / "inference.json").read_text())
    names = ("image_size", "image_mean", "image_std", "threshold", "ckpt_sha256")
    assert Engine(exported[name]).settings == {key: settings[key] for key in names}


def test_onnx_has_the_names_and_free_axes_that_clients_expect(exported):
    onnx = importlib.import_module("onnx")
    graph = onnx.load(str(exported["onnx"])).graph
    assert [one.name for one in graph.input] == ["image"] and [one.name for one in graph.output] == ["pred"]
    axes = graph.input[0].type.tensor_type.shape.dim
    assert axes[0].dim_param and axes[1].dim_value == 1 and axes[2].dim_param and axes[3].dim_param


@pytest.mark.parametrize("name", FORMATS)
def test_inferring_with_it_gives_the_same_masks(exported, run_folder: Path, tmp_path: Path, name: str):
    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50 + number), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")

    def masks(output: str, **options: str) -> list[bytes]:
        fixed = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / output), "threshold": 0.5}
        files = {"run_id": "inferring", "config_file": str(run_folder / "inference.json"), "logging_file": False}
        monai.bundle.run(**files, **fixed, device="cpu", **options)
        return [path.read_bytes() for path in sorted((tmp_path / output).glob("*.png"))]

    wanted = masks("network")
    assert len(wanted) == 3 and masks("engine", engine=str(exported[name])) == wanted


def test_an_engine_of_other_weights_is_refused(exported, run_folder: Path, tmp_path: Path):
    other = shutil.copytree(run_folder, tmp_path / "other")
    torch.manual_seed(9)
    torch.save(MGCC(1, 1, (4, 4, 8, 8, 16)).state_dict(), other / "model.pt")
    settings = json.loads((other / "inference.json").read_text())
    from mgcc_monai.files import sha256

    (other / "inference.json").write_text(json.dumps(settings | {"ckpt_sha256": sha256(other / "model.pt")}))
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").save(tmp_path / "in" / "a.png")
    with pytest.raises(SystemExit, match="exported from other weights"):
        monai.bundle.run(
            run_id="inferring",
            config_file=str(other / "inference.json"),
            dataset_dir=str(tmp_path / "in"),
            output_dir=str(tmp_path / "out"),
            engine=str(exported["onnx"]),
            logging_file=False,
        )


def _other_network(run: Path) -> None:
    content = json.loads((run / "inference.json").read_text())
    content["network_def"]["channels"] = [4, 4, 8, 8, 32]
    (run / "inference.json").write_text(json.dumps(content))


REFUSED = {
    "format": (lambda run: None, {"format": "tflite"}, "--format tflite: expected one of onnx"),
    "suffix": (lambda run: None, {"output": "model.bin"}, "expected a file that ends in .onnx"),
    "no weights": (lambda run: (run / "model.pt").unlink(), {}, "model.pt: there is no such file"),
    "no settings": (lambda run: (run / "inference.json").unlink(), {}, "inference.json: there is no such file"),
    "other network": (_other_network, {}, "another network"),
    "damaged": (lambda run: (run / "model.pt").write_bytes(b"x"), {}, "model.pt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_in_a_line(run_folder: Path, tmp_path: Path, name: str):
    change, options, told = REFUSED[name]
    run = shutil.copytree(run_folder, tmp_path / "run")
    change(run)
    output = str(tmp_path / "out" / options.get("output", "model.onnx"))
    with pytest.raises(MGCCError, match=told) as error:
        export(str(run), output, options.get("format", "onnx"))
    assert "\n" not in str(error.value) and not list((tmp_path / "out").glob("*"))


def test_a_missing_library_is_named_with_the_line_that_installs_it(run_folder, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MGCCError, match=r"needs onnx; run `pip install 'mgcc_monai\[onnx\]'`"):
        export(str(run_folder), str(tmp_path / "model.onnx"))
    with pytest.raises(MGCCError, match=r"needs openvino; run `pip install 'mgcc_monai\[openvino\]'`"):
        Engine(exported["openvino"])


def test_a_network_that_exports_to_something_else_is_not_written(run_folder, tmp_path, monkeypatch):
    def wrong(network, settings, path):
        other = MGCC(1, 1, (4, 4, 8, 8, 16)).eval()
        torch.jit.save(torch.jit.script(other), str(path), _extra_files={"mgcc_settings.json": "{}"})

    monkeypatch.setitem(FORMATS, "torchscript", wrong)
    with pytest.raises(MGCCError, match="differs from the network"):
        export(str(run_folder), str(tmp_path / "out" / "model.ts"), "torchscript")
    assert not (tmp_path / "out" / "model.ts").exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.ts", "model.xml", "model.pt"])
def test_an_engine_that_is_none_is_refused_in_a_line(tmp_path: Path, name: str):
    with pytest.raises(MGCCError, match="--engine .*expected a file of `export`"):
        Engine(tmp_path / name)
    (tmp_path / name).write_bytes(b"no engine")
    with pytest.raises(MGCCError, match="--engine") as error:
        Engine(tmp_path / name)
    assert "\n" not in str(error.value)
