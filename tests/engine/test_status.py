"""What `spoco-blocks status` says of runs that go on, were killed, failed or finished: real processes all of them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from block_tasks import Note, line_of
from rich.console import Console

from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.ledger import Ledger
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.engine.status import Status, show
from spoco_blocks.errors import BlockError

RUNNER = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from block_tasks import Note
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.runner import Blocks, run
from spoco_blocks.grid import BlockGrid

@dataclass(frozen=True)
class Waits(Note):
    def __call__(self, block):
        time.sleep(0.2)
        if block.index == 2:
            time.sleep(600)
        return super().__call__(block)

folder = Path(sys.argv[1])
blocks = Blocks(BlockGrid((1, 1, 5), (1, 1, 1)), folder / "results/segmentations/demo/embed", "identity")
run(Waits(folder), blocks, Execution())
"""


def blocks_of(folder, stage="embed", **shard):
    return Blocks(line_of(5, folder).grid, folder / "results/segmentations/demo" / stage, "identity", **shard)


def status(folder):
    command = [sys.executable, "-m", "spoco_blocks.cli", "status", str(folder / "results")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(folder, text):
    deadline = time.monotonic() + 60
    while text not in (said := status(folder) if (folder / "results").exists() else "") and time.monotonic() < deadline:
        time.sleep(0.1)
    return said


@pytest.fixture
def runner(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], env=environment)
    yield process
    process.kill()
    process.wait()


def test_a_run_that_goes_on_and_is_killed(tmp_path, runner):
    said = wait_for(tmp_path, "2 since")
    assert "segmentations/demo embed: running, 2/5 blocks, 1 in hand" in said
    assert " left" in said
    assert runner.poll() is None
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    said = status(tmp_path)
    assert "segmentations/demo embed: stopped, 2/5 blocks" in said
    assert "since" not in said
    assert run(Note(tmp_path), blocks_of(tmp_path), Execution()).computed == 3
    assert "segmentations/demo embed: finished, 5/5 blocks" in status(tmp_path)


def test_a_run_that_failed(tmp_path):
    for index in (1, 4):
        (tmp_path / f"fail-{index}").touch()
    with pytest.raises(BlockError):
        run(Note(tmp_path), blocks_of(tmp_path), Execution())
    said = status(tmp_path)
    assert "demo embed: failed, 3/5 blocks, 2 failed" in said
    assert "block 4 failed: ValueError: bad data in [0:1, 0:1, 4:5]" in said
    (tmp_path / "fail-4").unlink()
    with pytest.raises(BlockError):
        run(Note(tmp_path), blocks_of(tmp_path), Execution())
    assert "demo embed: failed, 4/5 blocks, 1 failed" in status(tmp_path)


def test_shards_and_folders_of_all_kinds(tmp_path):
    run(Note(tmp_path), blocks_of(tmp_path, shard=1, shards=2), Execution())
    run(Note(tmp_path), blocks_of(tmp_path, "calibrate/modes"), Execution())
    for owner, stage in (("volumes/balls", "labels"), ("models/net/pseudo/balls", "overlaps")):
        run(Note(tmp_path), Blocks(line_of(3, tmp_path).grid, tmp_path / "results" / owner / stage, "i"), Execution())
    # A store is no place to look for ledgers, however it is named inside.
    (tmp_path / "results/segmentations/demo/embeddings.zarr/c").mkdir(parents=True)
    found = {(s.owner, s.stage): (s.done, s.blocks, s.state) for s in Status(tmp_path / "results").stages()}
    assert found == {
        ("segmentations/demo", "embed"): (3, 3, "finished"),
        ("segmentations/demo", "calibrate/modes"): (5, 5, "finished"),
        ("volumes/balls", "labels"): (3, 3, "finished"),
        ("models/net/pseudo/balls", "overlaps"): (3, 3, "finished"),
    }
    assert "embed: finished, 3/3 blocks, 1 of 2 shards" in status(tmp_path)


def test_what_was_added_is_read_on_and_what_began_anew_is_forgotten(tmp_path):
    run(Note(tmp_path), blocks_of(tmp_path, only=(0, 1)), Execution())
    status = Status(tmp_path / "results")
    assert [stage.done for stage in status.stages()] == [2]
    run(Note(tmp_path), blocks_of(tmp_path, only=(0, 1, 2)), Execution())
    assert [(stage.done, stage.blocks) for stage in status.stages()] == [(3, 3)]
    with Ledger(blocks_of(tmp_path).folder, "shard-0", "of other settings"):
        pass
    assert status.stages() == []


def test_a_terminal_gets_a_table(tmp_path):
    run(Note(tmp_path), blocks_of(tmp_path), Execution())
    (tmp_path / "fail-1").touch()
    with pytest.raises(BlockError):
        run(Note(tmp_path), blocks_of(tmp_path, "cluster"), Execution())
    out = io.StringIO()
    show(tmp_path / "results", console=Console(file=out, force_terminal=True, width=100))
    assert "finished" in out.getvalue()
    assert "│    5/5 │" in out.getvalue()
    assert "demo cluster: block 1 failed: ValueError: bad data in [0:1, 0:1, 1:2]" in out.getvalue()


def test_a_folder_that_is_not_there(tmp_path):
    command = [sys.executable, "-m", "spoco_blocks.cli", "status", str(tmp_path / "resluts")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "no results folder at" in result.stderr
