"""Commands start at once: nothing heavy is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "monai", "diffusers", "ignite", "scipy", "skimage", "PIL")


@pytest.mark.parametrize("module", ["mgcc_monai", "mgcc_monai.cli", "mgcc_monai.runs.show", "mgcc_monai.runs.fit"])
def test_an_import_brings_nothing_heavy(module: str):
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_name_is_imported_when_it_is_asked_for():
    code = "import mgcc_monai, sys; mgcc_monai.networks.MGCC; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"
