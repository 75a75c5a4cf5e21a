"""How far a run is, in a terminal and in a log."""

from __future__ import annotations

import io
import logging

from block_tasks import Note, line_of
from rich.console import Console

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.progress import RunProgress
from spoco_blocks.engine.runner import run


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    with RunProgress(4, Console(file=out, force_terminal=True, width=100)) as progress:
        progress.update(1, 0)
        progress.update(3, 1)
    assert "3/4" in out.getvalue()
    assert "1 failed" in out.getvalue()


def test_lines_of_the_log_stay_beside_the_bar(capsys):
    handler = logging.StreamHandler()
    before = handler.stream
    logging.getLogger().addHandler(handler)
    try:
        with RunProgress(2, Console(stderr=True, force_terminal=True, width=100)):
            assert handler.stream is not before
        assert handler.stream is before
    finally:
        logging.getLogger().removeHandler(handler)


def test_elsewhere_there_are_lines(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(Note(tmp_path), line_of(3, tmp_path), Execution())
    assert "3 of 3 blocks, " in caplog.text
