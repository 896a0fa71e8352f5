"""The commands that the docs show: read by the shell, by our own options and by the configs; and, on demand, run."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mgcc_monai import cli
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.runs.options import read_options

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundle"
PAGES = ["README.md", *(f"bundle/docs/{name}.md" for name in ("README", "clients", "data", "reproducing"))]
PAGES += ["bundle/models/README.md"]
SHIMS = ("python", "torchrun", "pip", "make", "cp", "monailabel", "mlflow", "tensorboard", "sha256sum")
SHIM = """#!{python}
import json, os, sys
with open({log!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), os.getcwd(), sys.argv[1:]]) + chr(10))
"""
MONAI = {"run", "download", "ckpt_export", "onnx_export", "verify_net_in_out"}


def blocks(page: str) -> list[str]:
    """The fenced blocks of a page that are for a shell: those without a language, unless they show a tree of files."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)
    return [text for language, text in found if not language and text.split()[0] in (*SHIMS, "source", "cd", "export")]


def recorded(page: str, folder: Path) -> list[tuple[str, Path, list[str]]]:
    """Let the shell read a page's blocks, with programs that note what they are called with and do nothing."""
    log = folder / "log"
    log.touch()
    for name in SHIMS:
        (folder / name).write_text(SHIM.format(python=sys.executable, log=str(log)))
        (folder / name).chmod(0o755)
    start = ROOT if page == "README.md" else BUNDLE
    code = "source() { :; }\n" + "\n".join(f"(cd {start}\n{block})" for block in blocks(page))
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", code], env=env, capture_output=True, text=True)
    assert "command not found" not in done.stderr, done.stderr
    return [(name, Path(cwd), words) for name, cwd, words in map(json.loads, log.read_text().splitlines())]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_names_options_and_files_that_there_are(page: str, tmp_path: Path):
    options = read_options(BUNDLE)
    commands = recorded(page, tmp_path)
    assert commands or page == "bundle/docs/reproducing.md", "no command was found"
    for program, cwd, words in commands:
        if program == "python" and words[:2] == ["-m", "mgcc_monai"]:
            read = cli.read_arguments(words[2], words[3:])
            assert words[2] != "fit" or set(read) - set(options) <= {"preset", "method", "tracking", "bundle_root"}
        elif program in ("python", "torchrun") and "monai.bundle" in words:
            words = words[words.index("monai.bundle") + 1 :]
            assert words[0] in MONAI, words
            if words[0] == "run":
                given = dict(zip(words[2::2], words[3::2]))
                files = given.pop("--config_file")
                files = ast.literal_eval(files) if files.startswith("[") else [files]
                shipped = [cwd / file for file in files if file.startswith("configs/")]
                assert all(file.is_file() for file in shipped), files
                wrong = {name for name in given if name[2:] not in options} - {"--logging_file", "--tracking"}
                assert not wrong, (wrong, words)
        elif program == "python" and words[0] != "-c":
            assert (ROOT / words[0]).is_file(), words


def busi_tree(source: Path, count: int) -> None:
    """Phantoms as BUSI is distributed."""
    write_phantoms(source.with_name("made"), count=count, seed=5, size=(160, 200))
    data = json.loads((source.with_name("made") / "dataset.json").read_text())
    kinds = {"cyst": "benign", "solid": "malignant", "shadowing": "malignant", "normal": "normal"}
    numbers = dict.fromkeys(kinds.values(), 0)
    for item in (item for name in ("training", "validation", "test", "normal") for item in data[name]):
        kind = kinds[item["class"]]
        numbers[kind] += 1
        (source / kind).mkdir(parents=True, exist_ok=True)
        for key, end in (("image", ""), ("label", "_mask")):
            picture = Image.open(source.with_name("made") / item[key])
            picture.save(source / kind / f"{kind} ({numbers[kind]}){end}.png")


def run_block(block: str, folder: Path) -> None:
    """Run a block for real, with the demo's sizes."""
    code = block.replace("--preset small", "--preset demo").replace("presets/small.yaml", "presets/demo.yaml")
    code = re.sub(r"^(make|source|pip|tensorboard|cp|mlflow) .*$", "", code, flags=re.M)
    python = f'python() {{ "{sys.executable}" -W ignore "$@"; }}\nset -e\n'
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(["bash", "-c", python + code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, code + done.stdout[-1500:] + done.stderr[-3000:]


@pytest.mark.clients
def test_the_commands_of_the_readme_and_of_the_clients_page_run(tmp_path: Path):
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    busi_tree(tmp_path / "Dataset_BUSI_with_GT", 80)
    first, last = ((tmp_path / "made" / "images" / f"phantom-{number:04d}.png") for number in (0, 1))
    for folder in (tmp_path / "images", tmp_path / "bundle" / "folder_of_images"):
        folder.mkdir()
        for image in (first, last):
            shutil.copyfile(image, folder / image.name)
    for block in blocks("README.md"):
        run_block(block.replace("--output data/busi", "--output data/busi --label_fraction 0.5"), tmp_path)
    assert (tmp_path / "runs" / "busi" / "evaluation" / "summary.json").is_file()
    assert len(list((tmp_path / "bundle" / "masks").glob("*_overlay.png"))) == 2
    (tmp_path / "runs" / "demo").symlink_to(tmp_path / "runs" / "busi")
    for name in ("a", "b"):
        write_phantoms(tmp_path / "data" / name, count=20, seed=ord(name), label_fraction=0.5, size=(96, 96))
    (tmp_path / "data" / "mine").symlink_to(tmp_path / "data" / "a")
    url = (tmp_path / "packed" / "ultrasound_mgcc_segmentation_v0.2.0.zip").as_uri()
    for block in blocks("bundle/docs/clients.md"):
        if "monailabel" in block or "deploy" in block or "--tracking" in block:
            continue
        shutil.rmtree(tmp_path / "masks", ignore_errors=True)
        training = "--config_file ultrasound_mgcc_segmentation/configs/train.json --dataset_dir data/mine"
        quick = f"{training} --max_iterations 4 --epoch_length 2 --generated_fraction 0"
        run_block(block.replace("URL_OF_THE_ZIP", url).replace(training, quick), tmp_path)
    assert (tmp_path / "model.onnx").is_file() and (tmp_path / "runs" / "federated" / "rounds.json").is_file()
