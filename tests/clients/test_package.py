"""A packed bundle works where it is unpacked, without this package, and is the same for the same input."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.interop.package import NAME, package

LOAD = """
import sys, torch, monai.bundle
import mgcc_monai
assert mgcc_monai.__file__.startswith({folder!r}), mgcc_monai.__file__
network = monai.bundle.load({name!r}, bundle_dir={parent!r}, workflow_type={kind!r}, device="cpu").eval()
image = torch.linspace(-2, 2, 32 * 32).reshape(1, 1, 32, 32)
torch.save(network(image).detach(), "loaded.pt")
"""


WORKFLOW = """
from monai.bundle import create_workflow
workflow = create_workflow(
    config_file={file!r}, workflow_type="infer", run_id="inferring", dataset_dir={images!r}, output_dir="again"
)
workflow.run()
workflow.finalize()
"""


def images(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 48 + number), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_two_packages_of_one_input_are_the_same_bytes(packed: Path, run_folder: Path, tmp_path: Path):
    again = package("1.2.3", str(tmp_path), weights=str(run_folder))
    assert again.name == f"{NAME}_v1.2.3.zip" and again.read_bytes() == packed.read_bytes()
    assert package("1.2.3", str(tmp_path), weights=str(run_folder)) == again  # the same once more is no conflict
    with zipfile.ZipFile(packed) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
        assert all(info.filename.startswith(f"{NAME}/") for info in archive.infolist())


def test_its_configs_hold_the_values_of_the_run(unpacked: Path, run_folder: Path):
    train, inference = (
        json.loads((unpacked / "configs" / f"{name}.json").read_text()) for name in ("train", "inference")
    )
    run = json.loads((run_folder / "inference.json").read_text())
    for name in ("image_size", "image_mean", "image_std", "threshold", "network_def", "ckpt_sha256"):
        assert inference[name] == run[name], name
    assert train["channels"] == run["network_def"]["channels"] and train["learning_rate"] == 0.1
    assert [train[name] for name in ("image_size", "image_mean", "max_iterations")] == [[32, 32], run["image_mean"], 2]
    text = "".join(path.read_text() for path in unpacked.rglob("*.json"))
    assert str(run_folder.parent) not in text, "a path of the machine"
    assert json.loads((unpacked / "configs" / "metadata.json").read_text())["version"] == "1.2.3"
    assert (unpacked / "models" / "model.pt").read_bytes() == (run_folder / "model.pt").read_bytes()


def test_every_vendored_module_has_the_licence_and_runs(unpacked: Path, bare):
    modules = list((unpacked / "mgcc_monai").rglob("*.py"))
    assert len(modules) > 100
    assert all("Licensed under the Apache License" in path.read_text()[:200] for path in modules)
    bare(unpacked, "-c", "import mgcc_monai.cli, mgcc_monai.interop.package, mgcc_monai.runs.fit")


@pytest.fixture
def server(packed: Path) -> Iterator[str]:
    """The address of a server of the zip."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=packed.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{packed.name}"
        server.shutdown()


def test_downloaded_it_segments_trains_and_loads_without_an_installation(
    server: str, bare, run_folder: Path, phantoms: Path, tmp_path: Path
):
    with pytest.raises(AssertionError, match="No module named 'mgcc_monai'"):
        bare(tmp_path, "-c", "import mgcc_monai")
    run = ("-m", "monai.bundle")
    bare(tmp_path, *run, "download", "--name", NAME, "--url", server, "--bundle_dir", tmp_path)
    configs, folder = tmp_path / NAME / "configs", images(tmp_path / "in")
    inference = ("run", "inferring", "--config_file", configs / "inference.json", "--dataset_dir", folder)
    bare(tmp_path, *run, *inference, "--output_dir", "masks")
    own = [sys.executable, "-W", "ignore", *run, "run", "inferring", "--config_file", run_folder / "inference.json"]
    subprocess.run([*own, "--dataset_dir", folder, "--output_dir", tmp_path / "own"], check=True, capture_output=True)
    for path in sorted((tmp_path / "own").glob("*.png")):
        assert path.read_bytes() == (tmp_path / "masks" / path.name).read_bytes()
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3

    options = ("--max_iterations", 4, "--epoch_length", 2, "--generated_fraction", 0, "--models_dir", "models")
    train = ("run", "training", "--config_file", configs / "train.json", "--dataset_dir", phantoms)
    bare(tmp_path, *run, *train, "--output_dir", "runs", *options)
    assert json.loads((tmp_path / "runs/segmentation/run.json").read_text())["iterations"] == 4

    state = torch.load(run_folder / "model.pt", weights_only=True)
    for kind in ("train", "inference"):
        code = LOAD.format(folder=str(tmp_path), name=NAME, parent=str(tmp_path), kind=kind)
        bare(tmp_path, "-c", code, path=tmp_path / NAME)
        from mgcc_monai.networks import MGCC

        network = MGCC(1, 1, (4, 4, 8, 8, 16)).eval()
        network.load_state_dict(state)
        image = torch.linspace(-2, 2, 32 * 32).reshape(1, 1, 32, 32)
        assert torch.equal(torch.load(tmp_path / "loaded.pt"), network(image))

    bare(tmp_path, "-c", WORKFLOW.format(file=str(configs / "inference.json"), images=str(folder)))
    assert len(list((tmp_path / "again").glob("*.png"))) == 3
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "required": ["version", "monai_version"]}))
    verify = ("verify_metadata", "--meta_file", configs / "metadata.json", "--filepath", tmp_path / "schema.json")
    assert "no error" in bare(tmp_path, *run, *verify)  # a schema that is there is not downloaded

    files = ("--meta_file", configs / "metadata.json", "--config_file", configs / "inference.json")
    assert "no error" in bare(tmp_path, *run, "verify_net_in_out", "network_def", *files, path=tmp_path / NAME)
    export = ("ckpt_export", "network_def", "--filepath", "m.ts", "--ckpt_file", configs.parent / "models" / "model.pt")
    bare(tmp_path, *run, *export, *files, path=tmp_path / NAME)
    assert torch.equal(torch.jit.load(tmp_path / "m.ts")(image), network(image))


def test_large_weights_are_listed_with_their_sha256(run_folder: Path, tmp_path: Path, monkeypatch):
    from mgcc_monai.files import sha256

    monkeypatch.setattr("mgcc_monai.interop.package.LARGE", 1000)
    path = package("1.2.3", str(tmp_path), weights=str(run_folder), weights_url="https://example.org/model.pt")
    with zipfile.ZipFile(path) as archive:
        text = archive.read(f"{NAME}/large_files.yml").decode()
    from monai.bundle import ConfigParser

    (tmp_path / "large_files.yml").write_text(text)
    (entry,) = ConfigParser.load_config_file(str(tmp_path / "large_files.yml"))["large_files"]
    wanted = {"path": "models/model.pt", "url": "https://example.org/model.pt", "hash_type": "sha256"}
    assert entry == wanted | {"hash_val": sha256(run_folder / "model.pt")}


def _other_weights(run: Path, bundle: Path) -> None:
    torch.save({"a": torch.zeros(1)}, run / "model.pt")


def _other_network(run: Path, bundle: Path) -> None:
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | {"channels": [4, 4, 8, 8, 32]}))


FAULTS = {
    "version": (lambda run, bundle: None, {"version": "new"}, "--version new: expected three numbers"),
    "no weights": (lambda run, bundle: (run / "model.pt").unlink(), {}, "model.pt: there is no such file; give"),
    "no settings": (lambda run, bundle: (run / "inference.json").unlink(), {}, "inference.json: there is no such file"),
    "other weights": (_other_weights, {}, "model.pt"),
    "other network": (_other_network, {}, "is of another network than .*config.json describes .channels"),
    "no licence": (lambda run, bundle: (bundle / "LICENSE").unlink(), {}, "LICENSE: missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_packed_is_refused_in_a_line(run_folder: Path, bundle: Path, tmp_path: Path, name: str):
    change, options, told = FAULTS[name]
    run = shutil.copytree(run_folder, tmp_path / "copy")
    change(run, bundle)
    arguments = {"version": "1.2.3", "output": str(tmp_path / "out"), "weights": str(run), "bundle_root": str(bundle)}
    with pytest.raises(MGCCError, match=told) as error:
        package(**arguments | options)
    assert "\n" not in str(error.value) and not list((tmp_path / "out").glob("*"))


def test_code_that_the_zip_lacks_is_told(run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = shutil.copytree(run_folder, tmp_path / "copy")
    content = json.loads((run / "config.json").read_text())
    content["train_inferer"] = {"_target_": "my_module.Inferer"}
    (run / "config.json").write_text(json.dumps(content))
    package("1.2.3", str(tmp_path / "out"), weights=str(run))
    assert "train.json needs my_module, which the zip does not contain" in caplog.text


def test_a_zip_of_other_content_stays(run_folder: Path, tmp_path: Path):
    (tmp_path / f"{NAME}_v1.2.3.zip").write_bytes(b"other")
    with pytest.raises(MGCCError, match="exists with other content"):
        package("1.2.3", str(tmp_path), weights=str(run_folder))
    assert (tmp_path / f"{NAME}_v1.2.3.zip").read_bytes() == b"other"
