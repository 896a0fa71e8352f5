"""A naive reader in a process of its own: the control that shows that a payload is live."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def naively() -> Callable[..., None]:
    """Call a function in a forked process, whatever it raises; what it writes stays."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs processes that fork")

    def call(function: Callable[..., Any], *arguments: Any) -> None:
        process = multiprocessing.get_context("fork").Process(target=_quietly, args=(function, arguments))
        process.start()
        process.join(60)
        assert process.exitcode == 0

    return call


def _quietly(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        function(*arguments)
    except BaseException as error:  # many a payload breaks what comes after it
        print(type(error).__name__, error)
