"""The house stands: no room imports from a floor above, and no file has more than 300 lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def lint(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command as command; command()"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=REPOSITORY, capture_output=True, text=True)


def test_no_room_imports_from_a_floor_above():
    found = lint()
    assert found.returncode == 0, found.stdout
    assert "Contracts: 2 kept, 0 broken." in found.stdout


def test_an_arrow_back_up_is_noticed(tmp_path: Path):
    """The same contract with two floors exchanged, which files import from runs then."""
    config = (REPOSITORY / "pyproject.toml").read_text()
    wrong = config.replace('    "gate",\n    "generation",', '    "generation",\n    "gate",')
    assert wrong != config
    (tmp_path / "wrong.toml").write_text(wrong)
    found = lint("--config", str(tmp_path / "wrong.toml"))
    assert found.returncode == 1 and "mgcc_monai.gate is not allowed to import mgcc_monai.generation" in found.stdout


@pytest.mark.parametrize("folder", ["mgcc_monai", "tests"])
def test_files_are_short(folder: str):
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (REPOSITORY / folder).rglob("*.py")}
    limit = 300 if folder == "mgcc_monai" else 400
    assert not {path: count for path, count in lines.items() if count > limit}
