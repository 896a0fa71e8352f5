"""From PNG files through a stock evaluator to cases.csv and summary.json."""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    Activationsd,
    Compose,
    CopyItemsd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
)
from PIL import Image

from mgcc_monai.distributed import gather
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.cases import COLUMNS, CaseMetricsHandler, case_row, to_hw
from mgcc_monai.evaluation.metrics import case_metrics
from mgcc_monai.files import write_file, write_table

HEIGHT, WIDTH = 60, 80
ROW_MM, COLUMN_MM = 3.0, 0.5


class Threshold(torch.nn.Module):
    """A network that calls lesion what is bright: fixed logits, so that the images decide what is predicted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 40 * (x - 0.5)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask


# name: (what the network will say, the reference, class, list)
EMPTY = box(0, 0, 0, 0)
CASES = {
    "right": (box(15, 20, 30, 20), box(15, 20, 30, 20), "benign", "test"),
    "shifted": (box(15, 30, 30, 20), box(15, 20, 30, 20), "malignant", "test"),  # 10 columns too far right
    "missed": (EMPTY, box(5, 60, 10, 10), "benign", "test"),
    "normal": (EMPTY, EMPTY, "normal", "normal"),
    "false": (box(30, 40, 12, 16), EMPTY, "normal", "normal"),
}


def write_dataset(folder: Path, spacing: bool) -> list[dict]:
    items = []
    for name, (image, label, kind, part) in CASES.items():
        for sub, array in (("images", image), ("labels", label)):
            (folder / sub).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / sub / f"{name}.png")
        item = {"image": f"{folder}/images/{name}.png", "label": f"{folder}/labels/{name}.png", "list": part}
        item |= {"class": kind, "group": name, "original": f"{kind} ({name}).png"}
        items.append(item | ({"spacing": [ROW_MM, COLUMN_MM]} if spacing else {}))
    return items


def evaluator(items: list[dict], handlers: list, **options: object) -> SupervisedEvaluator:
    preprocessing = Compose(
        [
            CopyItemsd("label", names="label_original"),  # the path, read again after the network
            LoadImaged(["image", "label"], reader="PILReader"),
            EnsureChannelFirstd(["image", "label"]),
            ScaleIntensityRanged(["image", "label"], 0, 255, 0, 1),
            Resized(["image", "label"], (32, 32), mode=("bilinear", "nearest")),
        ]
    )
    postprocessing = Compose(
        [
            Activationsd("pred", sigmoid=True),
            CopyItemsd("pred", names="pred_original"),
            Invertd("pred_original", preprocessing, orig_keys="image", nearest_interp=False),
            LoadImaged("label_original", reader="PILReader"),
            EnsureChannelFirstd("label_original"),
        ]
    )
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, preprocessing), batch_size=2),
        network=Threshold(),
        postprocessing=postprocessing,
        val_handlers=handlers,
        **options,
    )


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("cases")
    header = {"protocol": "strict", "split": "test", "split_seed": 3}
    handler = CaseMetricsHandler(str(folder / "out"), 0.5, header, str(folder / "images"), print_table=False)
    engine = evaluator(write_dataset(folder, spacing=True), [handler])
    engine.run()
    first = (folder / "out" / "cases.csv").read_bytes()
    engine.run()  # the same again, not the rows of both
    assert (folder / "out" / "cases.csv").read_bytes() == first
    summary = json.loads((folder / "out" / "summary.json").read_text())
    return read_rows(folder / "out" / "cases.csv"), summary, folder / "out"


def test_files_and_columns(run: tuple) -> None:
    rows, _, folder = run
    assert sorted(path.name for path in folder.iterdir()) == ["cases.csv", "summary.json"]
    assert set(rows) == {f"{name}.png" for name in CASES}
    assert tuple(rows["right.png"]) == COLUMNS
    assert rows["shifted.png"]["original"] == "malignant (shifted).png"
    assert {row["group"] for row in rows.values()} == set(CASES)


def test_width_and_height_are_those_of_the_file(run: tuple) -> None:
    for row in run[0].values():
        assert (int(row["width"]), int(row["height"])) == (WIDTH, HEIGHT)


def test_areas_are_those_of_the_files(run: tuple) -> None:
    for name, (pred, label, _, _) in CASES.items():
        row = run[0][f"{name}.png"]
        assert int(row["label_area"]) == np.count_nonzero(label)
        assert float(row["label_fraction"]) == pytest.approx(np.count_nonzero(label) / (HEIGHT * WIDTH))
        assert int(row["pred_area"]) == pytest.approx(np.count_nonzero(pred), rel=0.15)


def test_figures_at_original_size(run: tuple) -> None:
    rows, _, _ = run
    assert float(rows["right.png"]["dice"]) > 0.95
    assert float(rows["shifted.png"]["dice"]) == pytest.approx(0.5, abs=0.05)
    assert (rows["missed.png"]["dice"], rows["missed.png"]["hd95"]) == ("0.0", "")
    assert (rows["normal.png"]["dice"], rows["false.png"]["dice"]) == ("1.0", "0.0")
    assert (rows["missed.png"]["lesions"], rows["missed.png"]["lesions_found"]) == ("1", "0")


def test_millimetres_run_along_the_right_axis(run: tuple) -> None:
    """Ten columns are 5 mm here; were the axes swapped, they would be 30 mm."""
    shifted = run[0]["shifted.png"]
    assert float(shifted["hd95"]) == pytest.approx(10, abs=1.5)
    assert float(shifted["hd95_mm"]) == pytest.approx(10 * COLUMN_MM, abs=1.5 * COLUMN_MM)


def test_figures_at_network_size(run: tuple) -> None:
    """10 of 80 columns are 4 of 32."""
    assert float(run[0]["shifted.png"]["network_hd95"]) == pytest.approx(4, abs=1)
    assert float(run[0]["right.png"]["network_dice"]) > 0.95


def test_summary_of_the_run(run: tuple) -> None:
    rows, summary, _ = run
    lesion = [rows[f"{name}.png"] for name in ("right", "shifted", "missed")]
    assert (summary["n"], summary["distance_unit"], summary["hd95_left_out"]) == (3, "mm", 1)
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(np.mean([float(row["dice"]) for row in lesion]))
    assert summary["metrics"]["hd95"]["mean"] == pytest.approx(
        np.mean([float(row["hd95_mm"]) for row in lesion if row["hd95_mm"]])
    )
    assert summary["normal"]["false_positive_rate"] == 0.5
    assert summary["lesion_sensitivity"]["total"] == 3
    assert (summary["protocol"], summary["split_seed"], summary["threshold"]) == ("strict", 3, 0.5)


def test_without_spacing_distances_are_pixels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    items = write_dataset(tmp_path, spacing=False)[:3]
    handler = CaseMetricsHandler(str(tmp_path / "out"), postfix="_test")
    evaluator(items, [handler]).run()
    assert handler.summary["distance_unit"] == "pixels"
    rows = read_rows(tmp_path / "out" / "cases_test.csv")
    assert all(row["hd95_mm"] == "" and row["spacing_row"] == "" for row in rows.values())
    assert str(tmp_path / "images" / "right.png") in rows  # no data_root_dir: the whole path
    table = capsys.readouterr().out
    assert "distances in pixels" in table
    assert "benign" in table


def item(prob: np.ndarray, label: np.ndarray, **more: object) -> dict:
    """HW arrays as an evaluator would hand them over, with the same at both sizes."""
    pred, mask = (torch.from_numpy(np.ascontiguousarray(a.T)).float()[None] for a in (prob, label))
    return {"pred": pred, "label": mask, "pred_original": pred, "label_original": mask} | more


def test_a_row_is_exact() -> None:
    rng = np.random.default_rng(0)
    prob, label = rng.random((20, 30)), rng.random((20, 30)) < 0.3
    row = case_row(item(prob, label, original="a.png", group=0, spacing=torch.tensor([2.0, 0.1])), threshold=0.7)
    mm = case_metrics(prob >= 0.7, label, (2.0, 0.1))
    for metric, value in case_metrics(prob >= 0.7, label).items():
        assert row[metric] == row[f"network_{metric}"] == value
    assert (row["hd95_mm"], row["assd_mm"]) == (mm["hd95"], mm["assd"])
    assert (row["image"], row["group"], row["class"], row["list"]) == ("a.png", "0", "unknown", "test")
    assert tuple(row) == COLUMNS


def test_softmax_and_two_channel_labels() -> None:
    prob, label = np.full((4, 6), 0.2), np.zeros((4, 6))
    prob[1, 2] = label[1, 2] = 0.9
    plain = case_row(item(prob, label > 0))
    double = item(prob, label > 0)
    double = {key: torch.cat([1 - value, value]) for key, value in double.items()}
    assert str(case_row(double)) == str(plain)


@pytest.mark.parametrize("spacing", [None, [0.0, 0.0], [float("nan"), 1.0], [1.0]])
def test_spacing_that_says_nothing(spacing: object) -> None:
    row = case_row(item(np.ones((3, 3)), np.ones((3, 3)), spacing=spacing))
    assert row["spacing_row"] is None
    assert np.isnan(row["hd95_mm"])


def test_a_normal_image_needs_no_label() -> None:
    case = item(np.zeros((3, 4)), np.zeros((3, 4)), list="normal") | {"label": None, "label_original": None}
    assert case_row(case)["dice"] == 1
    with pytest.raises(MGCCError, match="no 'label_original'"):
        case_row(case | {"list": "test"})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"pred_original": None}, "no 'pred_original'"),
        ({"pred": torch.full((1, 6, 4), float("nan"))}, "NaN"),
        ({"pred": torch.full((1, 6, 4), 3.0)}, "must be probabilities"),
        ({"label_original": torch.zeros(1, 4, 6)}, "differ in size: 6x4 and 4x6"),
    ],
)
def test_planted_faults_are_named(fault: dict, message: str) -> None:
    with pytest.raises(MGCCError, match=message) as caught:
        case_row(item(np.zeros((4, 6)), np.zeros((4, 6)), original="b (1).png") | fault)
    assert caught.value.message.startswith("b (1).png: ")


def test_an_evaluator_that_does_not_decollate_is_refused(tmp_path: Path) -> None:
    handler = CaseMetricsHandler(str(tmp_path))
    batch = {"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}
    engine = SupervisedEvaluator(
        torch.device("cpu"), [batch], torch.nn.Identity(), val_handlers=[handler], decollate=False
    )
    with pytest.raises(MGCCError, match="decollate"):
        engine.run()
    assert not list(tmp_path.iterdir())
    with pytest.raises(MGCCError, match="between 0 and 1"):
        CaseMetricsHandler(str(tmp_path), threshold=50)


def test_arrays_are_turned_as_a_viewer_shows_them() -> None:
    image = MetaTensor(torch.zeros(1, 80, 60, dtype=torch.bfloat16))
    image[0, 70, 5] = 1  # x 70, y 5
    shown = to_hw(image)
    assert shown.shape == (60, 80)
    assert type(shown) is np.ndarray
    assert shown[5, 70] == 1
    assert np.array_equal(to_hw(image[0]), shown)
    with pytest.raises(ValueError, match="channel"):
        to_hw(torch.zeros(1, 1, 4, 4))


def test_files_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "table.csv"
    write_table(path, ["a", "b"], [{"a": 1, "b": float("nan"), "c": 5}, {"a": "x,y"}])
    assert path.read_text() == 'a,b\n1,\n"x,y",\n'
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(MGCCError, match="table.csv: cannot be written .No space left"):
        write_file(path, "half")
    assert path.read_text().startswith("a,b\n1")
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def _gather_in_process(rank: int, store: str, results: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results.put(gather({f"own {rank}": rank, "shared": 7}))
    torch.distributed.destroy_process_group()


def test_rows_of_two_processes_are_merged(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # spawning would import everything twice
    results = context.SimpleQueue()
    workers = [context.Process(target=_gather_in_process, args=(r, f"{tmp_path}/store", results)) for r in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        if worker.is_alive():
            worker.kill()
        assert worker.exitcode == 0
    assert results.get() == results.get() == {"own 0": 0, "own 1": 1, "shared": 7}
