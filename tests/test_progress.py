"""In a file progress is a line every tenth of the way; in a terminal it is a bar."""

from __future__ import annotations

import sys

import pytest
from ignite.engine import Engine

from mgcc_monai.handlers.progress import BatchProgress, TrainingProgress
from mgcc_monai.progress import progress_bar


@pytest.mark.parametrize("count", [1, 7, 10, 11, 99, 1000, 12345])
def test_a_file_gets_a_line_every_tenth(count, capsys):
    for _ in progress_bar(range(count), desc="reading"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 12 and "0%" in lines[0] and f"{count}/{count}" in lines[-1]
    assert len(lines) == min(count, -(-count // max(1, -(-count // 10)))) + 1
    assert not any("\r" in line for line in lines)


def test_moved_by_hand_and_from_where_a_run_goes_on(capsys):
    bar = progress_bar(total=200, initial=150, desc="training")
    for step in range(50):
        bar.set_postfix({"loss": step}, refresh=False)
        bar.update(1)
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("|")[2].split()[0] for line in lines] == ["150/200", "170/200", "190/200", "200/200"]
    assert "loss=19" in lines[1]


def test_what_is_switched_off_or_over_at_once_shows_nothing(capsys):
    for options in ({"disable": True}, {"delay": 60}):
        list(progress_bar(range(50), **options))
    assert capsys.readouterr().err == ""


def test_a_bar_within_another_moves_no_cursor_in_a_file(capsys):
    for _ in progress_bar(range(2), desc="stages"):
        list(progress_bar(range(3), desc="images"))
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\r" not in shown and shown.count("3/3") == 2


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(progress_bar(range(5), mininterval=0, position=0))
    shown = capsys.readouterr().err
    assert shown.count("\r") >= 2 and shown.count("\n") == 1


@pytest.mark.parametrize("handler", [BatchProgress("evaluating"), TrainingProgress()])
def test_the_engines_progress_is_lines_too(handler, capsys):
    engine = Engine(lambda engine, batch: {"loss": 0.5})
    handler.attach(engine)
    engine.run(range(300), max_epochs=1)
    assert 10 <= len(capsys.readouterr().err.splitlines()) <= 12
