"""What every attempt said, and how it ended, is kept."""

from __future__ import annotations

import logging

import pytest

from spoco_blocks.engine.attempts import Usage, attempt_log, usages
from spoco_blocks.errors import HandOverError


def stopped(path):
    with attempt_log(path):
        logging.getLogger("spoco_blocks").info("3 of 9 blocks")
        raise HandOverError("6 of 9 blocks are left", advanced=True)


def test_attempts_are_kept_one_after_the_other(tmp_path, caplog):
    path = tmp_path / "logs/embed-0.log"
    caplog.set_level(logging.INFO)
    with pytest.raises(HandOverError):
        stopped(path)
    with attempt_log(path, workers=2, memory_mb=3800):
        logging.getLogger("spoco_blocks").info("6 of 6 blocks")
    logging.getLogger("spoco_blocks").info("not of a stage")
    said = path.read_text()
    first, second = said.split(" begins\n")[1:]
    assert "3 of 9 blocks" in first
    assert "HandOverError: 6 of 9 blocks are left" in first
    assert "6 of 6 blocks" in second
    assert "finished" in second
    assert "MiB in the largest process" in second
    assert "not of a stage" not in said
    assert [(usage.workers, usage.asked_mb) for usage in usages(path)] == [(1, 0), (2, 3800)]
    assert all(usage.memory_mb > 10 for usage in usages(path))


def test_what_an_attempt_used_is_read_as_it_was_written(tmp_path):
    used = [Usage(12.5, 20.1, 2, 637, 3800), Usage(86400.0, 0.0, 1, 90, 0)]
    path = tmp_path / "log"
    path.write_text(
        f"2026-01-02 03:04:05 finished\n{used[0]}\nkilled: no last words\n2026-01-02 BlockError: 1 s\n{used[1]}\n"
    )
    assert usages(path) == used
    assert usages(tmp_path / "none") == []
