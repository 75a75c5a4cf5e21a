"""Arrays in files are gone through part by part: nothing is left out, and no more than a part stays in memory."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from spoco_blocks.errors import ResourceError
from spoco_blocks.stages.stitch import mapped
from spoco_blocks.stages.stitch.mapped import Workspace


def resident_bytes(path):
    """Give how much of a mapped file is in this process, as the system counts it."""
    found = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
    assert found
    return sum(map(int, found)) * 1024


@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_parts_cover_all_entries_once(monkeypatch, count):
    monkeypatch.setattr(mapped, "PART", 100)
    found = np.concatenate([np.arange(count)[part] for part in Workspace(None).parts(count)])
    np.testing.assert_array_equal(found, np.arange(count))


def test_no_more_than_a_part_stays_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "PART", 2**17)
    space, count, part_bytes = Workspace(tmp_path), 2**21, 2**20
    array, most = space.zeros("numbers", np.int64, (count,)), 0
    for part in space.parts(count):
        array[part] = np.arange(part.start, part.stop)
        most = max(most, resident_bytes(tmp_path / "numbers"))
    assert part_bytes <= most <= 2 * part_bytes
    assert resident_bytes(tmp_path / "numbers") == 0
    np.testing.assert_array_equal(np.fromfile(tmp_path / "numbers", np.int64), np.arange(count))
    # One entry of every page, from everywhere.
    indices, most = np.arange(0, count, 512), 0
    for span in space.spans(indices):
        np.testing.assert_array_equal(array[indices[span]], indices[span])
        most = max(most, resident_bytes(tmp_path / "numbers"))
    assert most <= 2 * part_bytes


def test_gathering_equals_indexing(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "PART", 7)
    rng = np.random.default_rng(0)
    numbers, vectors = rng.normal(size=200), rng.normal(size=(200, 3))
    for share in (0.0, 0.02, 0.5, 1.0):
        indices = np.flatnonzero(rng.random(200) < share)
        found = Workspace(tmp_path).gather(indices, numbers, vectors)
        np.testing.assert_array_equal(found[0], numbers[indices])
        np.testing.assert_array_equal(found[1], vectors[indices])


def test_an_array_made_again_leaves_the_one_before_alone(tmp_path):
    first = Workspace(tmp_path).zeros("ids", np.uint32, (10_000,))
    first[:] = 7
    second = Workspace(tmp_path).zeros("ids", np.uint32, (5,))
    assert (first == 7).all()
    assert second.tolist() == [0] * 5


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path):
    more = 2 * shutil.disk_usage(tmp_path).total
    with pytest.raises(ResourceError, match=r"numbers needs \S+ GiB, but \S+ GiB are free there. Make room"):
        Workspace(tmp_path).zeros("numbers", np.uint8, (more,))
    assert not (tmp_path / "numbers").exists()
