"""What every attempt said, and how it ended, is kept."""

from __future__ import annotations

import logging

import pytest

from spoco_blocks.engine.attempts import attempt_log
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
    with attempt_log(path):
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
