"""What a user can get wrong: each ends with one plain line that names the thing, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.networks import MGCC

FOLDER = Path(__file__).parent


def dataset_with(phantoms: Path, target: Path, name: str, count: int) -> Path:
    """A copy of the dataset whose list ``name`` is cut to ``count`` images."""
    from mgcc_monai.data.contents import LISTS
    from mgcc_monai.data.dataset import write_dataset

    shutil.copytree(phantoms, target)
    content = json.loads((target / "dataset.json").read_text())
    lists = {key: content[key] for key in LISTS}
    lists[name] = lists[name][:count]
    header = {key: content[key] for key in ("protocol", "split_seed", "label_fraction")}
    write_dataset(target, lists, **header)
    return target


def refused(run, tmp_path: Path, *words: object, **options: object) -> str:
    """Run, expect a refusal, and return its text; no run may have begun."""
    with pytest.raises(MGCCError) as error:
        run(*words, **options)
    assert not (tmp_path / "runs" / "segmentation").exists()
    return str(error.value)


def test_dataset_dir_that_does_not_exist(run, tmp_path: Path) -> None:
    text = refused(run, tmp_path, "training", "train.json", dataset_dir=str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in text and "prepare" in text and "\n" not in text


def test_folder_that_was_not_prepared(run, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert "prepare" in refused(run, tmp_path, "training", "train.json", dataset_dir=str(tmp_path / "raw"))


def test_fewer_labelled_images_than_a_batch(run, phantoms: Path, tmp_path: Path) -> None:
    few = dataset_with(phantoms, tmp_path / "few", "training", 1)
    text = refused(run, tmp_path, "training", "train.json", dataset_dir=str(few))
    assert "1 labelled images for batches of 2" in text and "--batch_size" in text


def test_no_unlabelled_image_while_the_consistency_has_weight(run, phantoms: Path, tmp_path: Path) -> None:
    none = dataset_with(phantoms, tmp_path / "none", "unlabeled", 0)
    text = refused(run, tmp_path, "training", "train.json", dataset_dir=str(none))
    assert "'unlabeled'" in text and "supervised.yaml" in text


@pytest.mark.parametrize("config", ["train_autoencoder.json", "train.json"])
def test_an_empty_mask_is_refused_before_any_stage(run, phantoms: Path, tmp_path: Path, config: str) -> None:
    """What stage 2 would refuse stage 1 refuses as well, not after the hours that it takes."""
    shutil.copytree(phantoms, tmp_path / "emptied")
    item = json.loads((tmp_path / "emptied" / "dataset.json").read_text())["test"][0]
    with Image.open(tmp_path / "emptied" / item["label"]) as label:
        Image.new("L", label.size).save(tmp_path / "emptied" / item["label"])
    text = refused(run, tmp_path, "training", config, dataset_dir=str(tmp_path / "emptied"))
    assert item["label"] in text and "empty" in text
    assert not (tmp_path / "runs" / "autoencoder").exists()


def test_all_damaged_files_of_a_dataset_are_listed_together(run, phantoms: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(phantoms, broken)
    items = json.loads((broken / "dataset.json").read_text())["training"]
    cut, page = (broken / item["image"] for item in items[:2])
    cut.write_bytes(cut.read_bytes()[:300])
    page.write_text("<html>moved</html>")
    text = refused(run, tmp_path, "training", "train.json", dataset_dir=str(broken))
    assert cut.name in text and page.name in text and "2 faults" in text


@pytest.mark.parametrize(
    ("option", "hint"),
    [("max_iteration", "max_iterations"), ("learning_rat", "learning_rate"), ("train#trainer#max_epoch", "max_epochs")],
)
def test_misspelt_option(run, phantoms: Path, tmp_path: Path, option: str, hint: str) -> None:
    text = refused(run, tmp_path, "training", "train.json", dataset_dir=str(phantoms), **{option: 3})
    assert option in text and f"did you mean '{hint}'" in text


@pytest.mark.parametrize(
    ("config", "options", "told"),
    [
        ("train.json", {"max_iterations": 0}, "--max_iterations must be an integer >= 1, got 0."),
        ("train.json", {"learning_rate": "foo"}, "--learning_rate must be a number >= 0, got foo."),
        ("train.json", {"seed": "x"}, "--seed x: give a whole number of at least 0."),
        ("train.json", {"device": "cuda:99"}, "--device cuda:99: cannot be used here"),
        ("train.json", {"image_size": [40, 32]}, "--image_size [40, 32]: give two multiples of 16"),
        ("train.json", {"channels": [4, 8, 16, 32, 64, 128]}, "--image_size [48, 48]: give two multiples of 32"),
        ("train_autoencoder.json", {"autoencoder_channels": [7, 8]}, "[7, 8]: give multiples of 8."),
        ("train_autoencoder.json", {"autoencoder_patch_size": [18, 16]}, "[18, 16]: give two multiples of 4"),
        ("train_autoencoder.json", {"autoencoder_patch_size": 16}, "--autoencoder_patch_size must be a list"),
    ],
)
def test_values_that_cannot_be(run, phantoms: Path, tmp_path: Path, config: str, options: dict, told: str) -> None:
    size = {"image_size": [48, 48]} if "channels" in options else {}
    text = refused(run, tmp_path, "training", config, dataset_dir=str(phantoms), **size, **options)
    assert told in text and "\n" not in text
    assert not (tmp_path / "runs" / "autoencoder").exists()


@pytest.mark.parametrize(
    ("sides", "told"), [([40, 32], "give two multiples of 16"), ([48] * 3, "must be a list"), (48, "must be a list")]
)
def test_sides_that_the_network_cannot_segment(run, tmp_path: Path, sides: object, told: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (64, 48), 90).save(tmp_path / "in" / "a.png")
    folders = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "masks")}
    with pytest.raises(MGCCError) as error:
        run("inferring", "inference.json", **folders, image_size=sides)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "masks").exists()


def test_switch_that_is_neither_true_nor_false(run, phantoms: Path, tmp_path: Path) -> None:
    assert "maybe" in refused(run, tmp_path, "training", "train.json", dataset_dir=str(phantoms), resume="maybe")


def test_resume_without_anything_to_resume(run, phantoms: Path, tmp_path: Path) -> None:
    text = refused(run, tmp_path, "training", "train.json", dataset_dir=str(phantoms), resume="true")
    assert str(tmp_path / "runs" / "segmentation" / "checkpoints") in text


def test_weights_of_another_network(run, phantoms: Path, tmp_path: Path) -> None:
    torch.save(MGCC(1, 1, (2, 4, 8), (1,)).state_dict(), tmp_path / "other.pt")
    options = {"dataset_dir": str(phantoms), "pretrained": str(tmp_path / "other.pt")}
    text = refused(run, tmp_path, "training", "train.json", **options)
    assert "other.pt" in text and "another network" in text
    with pytest.raises(MGCCError, match="another network"):
        run("inferring", "inference.json", dataset_dir=str(phantoms), ckpt_path=str(tmp_path / "other.pt"))
    assert not list((tmp_path / "runs").glob("*.png"))


def test_evaluation_before_training_and_on_images_that_trained(run, phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(MGCCError, match="train first"):
        run("evaluating", "train.json", "evaluate.json", dataset_dir=str(phantoms))
    run("training", "train.json", dataset_dir=str(phantoms))
    other = phantoms / "other_split.json"
    from mgcc_monai.data.prepare import split

    split(str(phantoms), str(other), label_fraction=0.5, split_seed=9)
    with pytest.raises(MGCCError, match="trained the weights"):
        run("evaluating", "train.json", "evaluate.json", dataset_dir=str(other))
    assert not (tmp_path / "runs" / "evaluation").exists()


def test_inference_folders(run, phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in (("absent", "no such folder"), ("empty", "no image")):
        with pytest.raises(MGCCError, match=words):
            run("inferring", "inference.json", dataset_dir=str(tmp_path / folder))
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(phantoms / "images" / "phantom-0000.png", images / "a.png")
    (images / "b.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    (images / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(MGCCError) as error:
        run("inferring", "inference.json", dataset_dir=str(images), output_dir=str(images))
    text = str(error.value)
    assert "holds the images themselves" in text and "same name" in text and "b.png" in text and "a.jpg" in text
    assert sorted(path.name for path in images.iterdir()) == ["a.jpg", "a.png", "b.png"]


def test_the_terminal_shows_one_line_and_exit_code_1(bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training", "--config_file"),
            *(str(bundle / "configs" / "train.json"), "--bundle_root", str(bundle), "--logging_file", "False"),
            *("--dataset_dir", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "runs")),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith(str(tmp_path / "nowhere"))
    assert not (tmp_path / "runs").exists()
