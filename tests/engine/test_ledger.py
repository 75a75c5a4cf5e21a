"""Records survive crashes, and only records of the same identity count."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spoco_blocks.engine.frames import pack, unpack
from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.errors import LedgerError

arrays = hnp.arrays(
    st.sampled_from([np.dtype("int64"), np.dtype("float64"), np.dtype("uint32"), np.dtype("bool")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(st.dictionaries(st.text(max_size=5), arrays, max_size=4))
def test_tables_come_back_as_they_went(tables):
    found = unpack(pack(tables))
    assert list(found) == list(tables)
    for name, array in tables.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def write(folder, blocks, identity="a", name="shard-0"):
    with Ledger(folder, name, identity) as ledger:
        for block in blocks:
            ledger.commit(block, {"x": np.arange(block + 1)})


def test_resumes_with_what_is_done(tmp_path):
    write(tmp_path, [0, 2])
    write(tmp_path, [1])
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        assert ledger.done().tolist() == [0, 1, 2]
    assert [len(record["x"]) for record in Records(tmp_path, "a", 3)] == [1, 2, 3]


def test_other_identity_starts_anew(tmp_path):
    write(tmp_path, [0, 1])
    write(tmp_path, [1], identity="b")
    with Ledger(tmp_path, "shard-0", "b") as ledger:
        assert ledger.done().tolist() == [1]
    with pytest.raises(LedgerError, match=r"0 of 2 blocks; missing are \[0, 1\]"):
        Records(tmp_path, "a", 2)


def test_number_of_shards_may_change(tmp_path):
    write(tmp_path, [0, 1], name="shard-0")
    write(tmp_path, [2, 3], name="shard-1")
    with Ledger(tmp_path, "shard-2", "a") as ledger:
        assert ledger.done().tolist() == [0, 1, 2, 3]


def test_blocks_that_were_overwritten_in_between_are_not_done(tmp_path):
    """Settings A in three shards, B in one, then A in one again: nothing of the first A is on disk any more."""
    for shard in range(3):
        write(tmp_path, [2 * shard, 2 * shard + 1], identity="a", name=f"shard-{shard}")
    write(tmp_path, range(6), identity="b")
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        assert ledger.done().size == 0


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_torn_tail_is_dropped(tmp_path, kept):
    write(tmp_path, range(3))
    path = tmp_path / "shard-0.ledger"
    whole = path.stat().st_size
    write(tmp_path, [3])
    torn = whole + int(kept * (path.stat().st_size - whole))
    os.truncate(path, torn)
    write(tmp_path, [4])
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        assert ledger.done().tolist() == [0, 1, 2, 4]


def test_damaged_record_ends_the_ledger(tmp_path):
    write(tmp_path, range(3))
    path = tmp_path / "shard-0.ledger"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        assert ledger.done().tolist() == [0, 1]


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    code = (
        "import sys, time, pathlib; from spoco_blocks.engine.ledger import Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]), 'shard-0', 'a'); ledger.done(); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LedgerError, match="another process is doing this work"):
            Ledger(tmp_path, "shard-0", "a")
    finally:
        holder.kill()
        holder.wait()
    write(tmp_path, [0])


def test_missing_block_is_an_index_error(tmp_path):
    write(tmp_path, [0])
    with pytest.raises(IndexError):
        Records(tmp_path, "a", 1)[1]
