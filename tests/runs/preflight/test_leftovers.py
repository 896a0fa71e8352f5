"""No mask of an earlier run stands beside a table that does not list it, and nothing else is ever removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgcc_monai.errors import MGCCError
from mgcc_monai.runs.preflight.leftovers import check_leftovers

HERE = {"output_ext": ".png"}


def left(folder: Path, *images: str, table: bool = True, **settings: object) -> None:
    """What a run over some images leaves in a folder."""
    end = f"_{settings['output_postfix']}" if settings.get("output_postfix") else ""
    ext, lines = str(settings.get("output_ext", ".png")), ["image,lesions,mask"]
    for image in images:
        stem = image.rsplit(".", 1)[0]
        inner = f"{stem}/" if settings.get("separate_folder") else ""
        (folder / inner).mkdir(parents=True, exist_ok=True)
        lines.append(f"{image},0,{inner}{stem}{end}{ext}")
        files = [f"{inner}{stem}{end}{ext}"]
        files += [f"{inner}{stem}_prob{ext}"] if settings.get("save_prob") else []
        for name in files + ([f"{stem}_overlay.png"] if settings.get("save_overlay") else []):
            (folder / name).write_text("old")
    if table:
        (folder / "lesions.csv").write_text("\n".join(lines) + "\n")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


EARLIER = {
    "another image": {},
    "nifti": {"output_ext": ".nii.gz"},
    "a postfix": {"output_postfix": "seg"},
    "a postfix with a dot": {"output_postfix": "v1.2", "save_prob": True},
    "folders": {"separate_folder": True, "save_prob": True},
    "all": {"output_ext": ".nii.gz", "output_postfix": "seg", "save_prob": True, "save_overlay": True},
}


@pytest.mark.parametrize("earlier", EARLIER)
def test_files_that_would_stay_are_refused_or_removed(tmp_path, earlier) -> None:
    left(tmp_path, "b.png", "c (1).jpg", **EARLIER[earlier])
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "precious.png").write_text("mine")
    before = names(tmp_path)
    with pytest.raises(MGCCError, match="--overwrite true") as error:
        check_leftovers(["in/a.png", "in/b.png"], str(tmp_path), **HERE)
    assert "\n" not in str(error.value) and names(tmp_path) == before
    check_leftovers(["in/a.png", "in/b.png"], str(tmp_path), **HERE, overwrite="true")
    kept = {"notes.txt", "other/deep/precious.png", "lesions.csv"} | ({"b.png"} & before)
    assert names(tmp_path) == kept and not (tmp_path / "b").exists()


@pytest.mark.parametrize("settings", EARLIER.values(), ids=EARLIER)
@pytest.mark.parametrize("table", [True, False])
def test_the_same_images_are_simply_replaced(tmp_path, settings, table) -> None:
    """Also after a run that was cut off and left no table."""
    left(tmp_path, "a.png", "b.png", table=table, **settings)
    check_leftovers(["in/a.png", "in/b.png", "in/c.png"], str(tmp_path), **{**HERE, **settings})
    left(tmp_path / "none", "a.png", table=False)
    check_leftovers(["in/a.png"], str(tmp_path / "none" / "not there"), **HERE)


def test_probabilities_and_overlays_of_the_run_before_do_not_stay(tmp_path) -> None:
    left(tmp_path, "a.png", save_prob=True, save_overlay=True)
    with pytest.raises(MGCCError, match=r"a_overlay.png, 2 in all"):
        check_leftovers(["in/a.png"], str(tmp_path), **HERE)
    check_leftovers(["in/a.png"], str(tmp_path), **HERE, overwrite=True)
    assert names(tmp_path) == {"a.png", "lesions.csv"}


def test_a_table_without_its_masks_is_not_replaced_unasked(tmp_path) -> None:
    left(tmp_path, "a.png", "b.png")
    (tmp_path / "b.png").rename(tmp_path.parent / "corrected.png")
    with pytest.raises(MGCCError, match="lesions.csv, 1 in all"):
        check_leftovers(["in/a.png"], str(tmp_path), **HERE)


@pytest.mark.parametrize("overwrite", [False, True])
def test_images_of_unknown_origin_are_never_removed(tmp_path, overwrite) -> None:
    left(tmp_path, "b.png", table=False)  # of an interrupted run over other images, or a person's own
    with pytest.raises(MGCCError, match="no lesions.csv lists.*b.png"):
        check_leftovers(["in/a.png"], str(tmp_path), **HERE, overwrite=overwrite)
    assert names(tmp_path) == {"b.png"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("text", ["image,mask\na.png,../kept.png\n", "image,mask\n../kept.png,../kept.png\n"])
def test_a_table_cannot_name_files_outside(tmp_path, text, overwrite) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "kept.png").write_text("mine")
    (tmp_path / "out" / "lesions.csv").write_text(text)
    try:
        check_leftovers(["in/a.png"], str(tmp_path / "out"), **HERE, overwrite=overwrite)
    except MGCCError:
        assert not overwrite
    assert (tmp_path / "kept.png").read_text() == "mine"


@pytest.mark.parametrize("text", ["name,value\nx,1\n", "image,lesions\na.png,0\n", "\x00\x01"])
def test_another_program_s_table_is_not_overwritten(tmp_path, text) -> None:
    (tmp_path / "lesions.csv").write_text(text)
    with pytest.raises(MGCCError, match="not a table that an inference wrote"):
        check_leftovers(["in/a.png"], str(tmp_path), **HERE, overwrite=True)
    assert (tmp_path / "lesions.csv").read_text() == text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"output_postfix": "prob", "save_prob": True}, "--output_postfix prob: gives masks the names"),
        ({"output_postfix": "overlay", "save_overlay": "yes"}, "--output_postfix overlay: gives masks the names"),
        ({"output_ext": ".jpg"}, "--output_ext .jpg: keeps no mask as it is"),
        ({"output_ext": "xyz"}, "--output_ext .xyz: keeps no mask as it is"),
        ({"overwrite": "maybe"}, "--overwrite maybe: is neither true nor false"),
        ({"save_prob": "ja"}, "--save_prob ja: is neither true nor false"),
        ({"separate_folder": 2}, "--separate_folder 2: is neither true nor false"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, told) -> None:
    with pytest.raises(MGCCError) as error:
        check_leftovers(["in/a.png"], str(tmp_path), **{**HERE, **settings})
    assert str(error.value).startswith(told)
