"""Memory is kept: tensors of a freed one's size cost the system nothing more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# pages that the system clears while convolutions whose tensors take 42 MB each run again, the fewest of 8 times
CODE = """import resource, torch
from mgcc_monai.allocator import keep_memory
print(keep_memory() if {keep} else None)
torch.manual_seed(0)
layers = torch.nn.Sequential(*[torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(6)]).requires_grad_(False)
image = torch.randn(20, 8, 256, 256)
pages = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    result = layers(image)
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(pages))
print(float(result.abs().sum()))"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


def run(keep: bool, **environment: str) -> list[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE.format(keep=keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | environment)
    return done.stdout.split()


@linux
def test_freed_memory_serves_the_next_tensor():
    (_, pages, total), (done, kept_pages, kept_total) = run(False), run(True)
    assert done == "True"
    assert int(kept_pages) < int(pages) / 10
    assert kept_total == total


@linux
def test_a_setting_of_the_users_stands():
    assert run(True, MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
    assert run(True, GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] == "False"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    from mgcc_monai import allocator

    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_memory()
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_memory()
