"""``check-bundle`` lets our own bundle pass and names all that is not on the list, with its place."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mgcc_monai import cli
from mgcc_monai.errors import MGCCError
from mgcc_monai.preflight import build
from mgcc_monai.security.bundle_check import check_bundle
from mgcc_monai.security.weights import LISTING, publish


def bundle(folder: Path, config: Any = None, name: str = "configs/train.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def told(path: Path) -> list[str]:
    return [str(finding) for finding in check_bundle(path)]


def test_our_bundle_has_no_finding_as_a_folder_and_as_a_zip(configs, tmp_path):
    assert told(configs.parent) == []
    archive = shutil.make_archive(str(tmp_path / "bundle"), "zip", configs.parent)
    assert told(Path(archive)) == []


@pytest.mark.parametrize("target", ["subprocess.call", "os.system", "eval", "builtins.exec", "run_cmd", "instantiate"])
@pytest.mark.parametrize("where", ["{}", "a#{}", "a::{}", "+a#{}"])
def test_target_outside_the_list_is_found_wherever_it_stands(target, where, tmp_path):
    key = where.format("_target_")
    (line,) = told(bundle(tmp_path, {"train": [1, {key: target}]}))
    assert line.startswith(f"configs/train.json: train#1#{key}: _target_ '") and target in line


@pytest.mark.parametrize(
    "target",
    """torch.load torch.hub.load torch.jit.load torch.save torch.ops.load_library torch.utils.cpp_extension.load
    torch.multiprocessing.spawn torch.nn.modules.module.torch.load torch.serialization.os.system
    monai.bundle.run monai.bundle.load monai.utils.run_cmd monai.utils.optional_import monai.utils.misc.subprocess.run
    monai.apps.download_url monai.data.utils.pickle.loads monai.networks.nets.resnet.hf_hub_download
    monai.networks.nets.DenseNet121.load_state_dict monai.data.load_net_with_metadata monai.losses.PerceptualLoss
    diffusers.AutoencoderKL.from_pretrained diffusers.DiffusionPipeline diffusers.UNet2DModel.__init__
    ignite.handlers.WandBLogger ignite.distributed.spawn mgcc_monai.fit.fit mgcc_monai.data.reader.Path
    mgcc_monai.preflight.ConfigParser mgcc_monai.data.datalist.write_json monai.data.utils.optional_import
    mgcc_monai.files.write_file mgcc_monai.security.weights.save_atomically torch.nn scripts.mine @a $a %a""".split(),
)
def test_dangers_inside_the_listed_packages_are_found(target, tmp_path):
    assert told(bundle(tmp_path, {"a": {"_target_": target}}))[0].startswith(
        "configs/train.json: a#_target_: _target_ "
    )


@pytest.mark.parametrize(
    "target",
    """LoadImaged Compose SupervisedTrainer monai.losses.DiceCELoss monai.networks.nets.UNet torch.optim.SGD
    torch.optim.lr_scheduler.PolynomialLR torch.nn.Conv2d torch.nn.functional.relu torch.utils.data.DataLoader
    diffusers.AutoencoderKL diffusers.UNet2DModel.from_config diffusers.optimization.get_scheduler
    ignite.handlers.EarlyStopping mgcc_monai.networks.MGCC""".split(),
)
def test_ordinary_components_pass(target, tmp_path):
    assert told(bundle(tmp_path, {"a": {"_target_": target}})) == []


@pytest.mark.parametrize(
    "argument",
    [
        {"reader": "subprocess.Popen"},
        {"reader": ["PILReader", "os.system"]},
        {"reader": "@name"},
        {"writer": "os.system"},
        {"merger_cls": "$x"},
        {"weights_only": False},
        {"weights_only": "@name"},
        {"allow_pickle": True},
        {"_mode_": "callable"},
        {"_mode_": "debug"},
        {"pretrained": True},
        {"pretrained_url": "https://example.org/x.pt"},
    ],
)
def test_arguments_that_name_code_are_found(argument, tmp_path):
    (name,) = argument
    lines = told(bundle(tmp_path, {"a": {"_target_": "LoadImaged", "keys": "image", **argument}}))
    assert any(f"a#{name}" in line for line in lines)
    if name not in ("pretrained", "_mode_"):
        assert told(bundle(tmp_path, {f"train#transform#0#{name}": argument[name]})), "an overlay says it so"


EXPRESSIONS = {
    "$__import__('os').system('true')": "__import__",
    "$os.system('true')": "os.system",
    "$os.path.os.system('true')": "os.path.os.system",
    "$open('x', 'w')": "open",
    "$eval('1')": "eval",
    "$exec('1')": "exec",
    "$compile('1', '', 'eval')": "compile",
    "$getattr(@a, 'run')": "getattr",
    "$globals()": "globals",
    "$vars(@a)": "vars",
    "$breakpoint()": "breakpoint",
    "$lambda x: os.popen(x)": "os.popen",
    "$[os.remove(x) for x in @files]": "os.remove",
    "$(lambda f=os.system: f('true'))()": "os.system",
    "$f'{os.getcwd()}'": "f-string",
    "$().__class__.__base__.__subclasses__()": "__subclasses__",
    "$@net.forward.__globals__['os']": "__globals__",
    "$(x for x in @a).gi_frame.f_globals": "gi_frame",
    "$'{0.__class__}'.format(@a)": "format",
    "$@handle.system('true')": "system",
    "$os": "module 'os'",
    "$[torch][0]": "module 'torch'",
    "$torch.load(@path)": "torch.load",
    "$torch.hub.load('a', 'b')": "torch.hub.load",
    "$np.load(@path, allow_pickle=True)": "numpy.load",
    "$monai.utils.run_cmd(['true'])": "monai.utils.run_cmd",
    "$monai.bundle.load('x')": "monai.bundle.load",
    "$mgcc_monai.files.write_file('a', 'b')": "write_file",
    "$mgcc_monai.generation.pipeline.torch.load('a')": "reaches the module torch",
    "$mgcc_monai.preflight.ConfigParser({'a': {'_tar' + 'get_': 'os.system'}})": "ConfigParser",
    "$[os for os in @a]": "name of its own",
    "$lambda torch: torch.load(1)": "name of its own",
    "$(y := 1)": "assignment",
    "$9 ** 9 ** 9": "power",
    "$b'cos'": "bytes",
    "$(": "cannot be read",
    "$" + "(" * 1500: "cannot be read",
    "$" + "-" * 5000: "characters",
    "$@" + "#" * 9 + "a": "cannot be read",
    "$import subprocess": "subprocess",
    "$import os as math": "'os' as 'math'",
    "$import os, subprocess": "one import a line",
    "$import os; os.system('true')": "one import a line",
    "$from os import system": "os.system",
    "$from . import x": "not on the list of modules",
    "$import scripts.mine": "scripts.mine",
    "%other.json#run": "another file",
    "%/etc/x.yaml": "another file",
}


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=[str(n) for n in range(len(EXPRESSIONS))])
def test_expression_outside_the_list_is_found(expression, tmp_path):
    lines = told(bundle(tmp_path, {"a": {"b": [expression]}}))
    assert lines and all(line.startswith("configs/train.json: a#b#0: ") for line in lines)
    assert any(EXPRESSIONS[expression] in line for line in lines)


@pytest.mark.parametrize("text", ["costs $5", "a@b.org", " $os.system('true')", "50 %", "%training"])
def test_plain_text_is_no_expression(text, tmp_path):
    assert told(bundle(tmp_path, {"a": text})) == []


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", '{"a": 1, "a": 2}', "'a' twice"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.json", "[" * 60 + "]" * 60, "nested"),
        ("a.json", '"' + "x" * 2_000_001 + '"', "more than the 2000000"),
        ("a.json", "\udcff", "cannot be read"),
        ("a.yaml", "a: 1\na: 2\n", "'a' twice"),
        ("a.yml", "a: !!python/object/apply:os.system [touch x]\n", "cannot be read"),
        ("a.YAML", "a: &a [1, 1]\nb: [*a, *a]\n", "alias"),
        ("large_files.yml", "large_files:\n- {path: ../x, url: 'https://a'}\n", "outside the bundle"),
        ("large_files.yml", "large_files:\n- {path: x, hash_val: '1', hash_type: md5}\n", "no sha256"),
        ("a.py", "", "is code"),
        ("a.so", "", "is code"),
        ("hook", "#!/bin/sh\n", "a script"),
        ("a.conf", "[handler_a]\nclass=__import__('os').system\n", "handler_a#class"),
        ("a.conf", "[handler_a]\nclass=FileHandler\nargs=('/etc/passwd', 'w')\n", "handler_a#class"),
        ("a.conf", "[handler_a]\nclass=StreamHandler\nargs=(open('x', 'w'),)\n", "handler_a#args"),
        ("a.conf", "[handler_a]\nkwargs={'a': os.getpid()}\n", "handler_a#kwargs"),
        ("a.conf", "[formatter_a]\ndefaults=__import__('os').system('true')\n", "formatter_a#defaults"),
        ("a.conf", "[DEFAULT]\nargs=(1).__class__\n", "DEFAULT#args"),
        ("a.ini", "no section", "cannot be read"),
    ],
)
def test_file_by_file(name, text, what, tmp_path):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    lines = told(tmp_path)
    assert lines and all(line.startswith(f"{name}: ") for line in lines)
    assert any(what in line for line in lines)


def test_links_and_foreign_code_are_found_and_our_own_package_is_not(tmp_path):
    package = tmp_path / "mgcc_monai"
    package.mkdir()
    for name in ("errors.py", "options.py"):
        shutil.copy(Path(cli.__file__).with_name(name), package)
    (package / "options.py").open("a").write("\n")
    (tmp_path / "link").symlink_to("/etc")
    lines = told(tmp_path)
    assert len(lines) == 2
    assert lines[0].startswith("link: is a link") and lines[1].startswith("mgcc_monai/options.py: is code")


def test_report_holds_no_control_characters(tmp_path):
    lines = told(bundle(tmp_path, {"a\x1b[2J\n": {"_target_": "os.\x1b[31m"}}))
    assert lines and all(line.isprintable() for line in lines)


def test_weights_are_looked_into_and_compared_with_their_listing(tmp_path):
    models = tmp_path / "models"
    publish({"weight": torch.ones(3, 2)}, models / "model.safetensors")
    torch.save({"weight": torch.ones(3), "epoch": 1}, models / "model.pt")
    torch.save({"weight": torch.ones(3)}, models / "old.pt", _use_new_zipfile_serialization=False)
    assert told(tmp_path) == []
    safetensors.torch.save_file({"weight": torch.zeros(3)}, models / "other.safetensors")
    assert [line for line in told(tmp_path) if "other.safetensors: is not in weights.json" in line]
    (models / "other.safetensors").unlink()
    content = bytearray((models / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (models / "model.safetensors").write_bytes(content)
    assert "model.safetensors: has another sha256" in told(tmp_path)[0]
    (models / LISTING).write_text("{}")
    (models / "model.safetensors").write_bytes(content[:-1])
    assert "header makes" in " ".join(told(tmp_path))


@pytest.mark.parametrize("cut", [0, 7, 8, 30])
def test_safetensors_without_a_whole_header(cut, tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:cut])
    assert len(told(tmp_path)) == 1
    (tmp_path / "a.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + content[8:])
    assert len(told(tmp_path)) == 1


def test_torchscript_is_told_as_the_program_that_it_is(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), str(tmp_path / "model.ts"))
    assert any("TorchScript" in line for line in told(tmp_path))


def test_archive_in_the_bundle_and_members_that_leave_it_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("b/configs/train.json", '{"a": "$os.system(1)"}')
        archive.writestr("../../evil.py", "")
        archive.writestr("b/inner.zip", b"PK\x03\x04")
    lines = told(tmp_path / "x.zip")
    assert lines[0].startswith("../../evil.py: has a path that leads out")
    assert lines[1].startswith("b/configs/train.json: a: expression 'os.system'")
    assert lines[2].startswith("b/inner.zip: is an archive")


def test_command_exits_with_1_and_the_list_or_with_0(configs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mgcc_monai", "check-bundle", str(configs.parent)])
    cli.main()
    assert "names nothing outside the list" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["mgcc_monai", "check-bundle", str(bundle(tmp_path, {"a": "$os.getpid()"}))])
    with pytest.raises(MGCCError, match="1 findings"):
        cli.main()
    assert capsys.readouterr().out.startswith("configs/train.json: a: expression 'os.getpid'")
    for nothing in (tmp_path / "no", tmp_path / "configs" / "train.json"):
        with pytest.raises(MGCCError):
            check_bundle(nothing)


def test_settings_beside_weights_build_only_what_is_on_the_list():
    assert build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}).in_features == 2
    for definition in (
        {"_target_": "subprocess.call", "args": ["true"]},
        {"_target_": "torch.nn.ReLU", "a": "$exit()"},
    ):
        with pytest.raises(MGCCError, match="inference.json"):
            build(definition)
