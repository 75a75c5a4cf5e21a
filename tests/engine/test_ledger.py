"""Records survive crashes, and only records of the same identity count."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spoco_blocks.engine.frames import DONE, FAILED, RUN, pack, read_frames, unpack
from spoco_blocks.engine.ledger import Ledger, Records
from spoco_blocks.engine.lock import holder
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


def test_torn_tail_is_dropped_wherever_it_is_torn(tmp_path):
    write(tmp_path, range(3))
    path = tmp_path / "shard-0.ledger"
    before = path.stat().st_size
    write(tmp_path, [3])
    whole = path.read_bytes()
    for kept in range(before, len(whole)):
        path.write_bytes(whole[:kept])
        write(tmp_path, [4])
        with Ledger(tmp_path, "shard-0", "a") as ledger:
            assert ledger.done().tolist() == [0, 1, 2, 4]


def test_a_torn_first_line_starts_anew(tmp_path):
    write(tmp_path, [0])
    path = tmp_path / "shard-0.ledger"
    line = path.read_bytes().index(b"\n")
    os.truncate(path, line - 3)
    write(tmp_path, [1])
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        assert ledger.done().tolist() == [1]


def test_says_what_happened(tmp_path):
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        ledger.begin({"todo": 3, "workers": 2})
        ledger.started([4, 5, 6])
        ledger.failed(5, "ValueError: größe", 0.5)
        ledger.commit(4, {"x": np.arange(2)}, 1.5)
        ledger.started([5])
        ledger.commit(5, {"x": np.arange(3)})
        assert ledger.done().tolist() == [4, 5]
    with (tmp_path / "shard-0.ledger").open("rb") as file:
        file.readline()
        run, started, failed, done, again, late = read_frames(file)
    assert run.kind == RUN
    assert run.facts == {"todo": 3, "workers": 2, "pid": os.getpid()}
    assert (started.blocks, again.blocks) == ([4, 5, 6], [5])
    assert (failed.kind, failed.block, failed.seconds, failed.reason) == (FAILED, 5, 0.5, "ValueError: größe")
    assert (done.kind, done.block, done.seconds) == (DONE, 4, 1.5)
    assert late.block == 5
    assert run.time <= done.time <= late.time
    assert len(Records(tmp_path, "a", 0).of(5)["x"]) == 3


def test_of_two_records_of_a_block_the_last_one_counts(tmp_path):
    for length in (1, 2):
        with Ledger(tmp_path, "shard-0", "a") as ledger:
            ledger.commit(0, {"x": np.arange(length)})
    records = Records(tmp_path, "a", 1)
    assert len(records[0]["x"]) == 2
    assert records.finished == [0]
    with pytest.raises(KeyError):
        records.of(1)


def test_a_full_disk_keeps_what_was_committed(tmp_path):
    """The limit is one of the operating system: it takes part of a write, then refuses."""
    code = (
        "import pathlib, resource, signal, sys; import numpy as np\n"
        "from spoco_blocks.engine.ledger import Ledger; from spoco_blocks.errors import LedgerError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with Ledger(pathlib.Path(sys.argv[1]), 'shard-0', 'a') as ledger:\n"
        "    try:\n"
        "        for block in range(1000): ledger.commit(block, {'x': np.arange(block)})\n"
        "    except LedgerError as error: print(block, error)"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    kept = int(said.split()[0])
    assert "is the disk full? What was finished before is kept" in said
    assert kept > 3
    with (tmp_path / "shard-0.ledger").open("rb") as file:
        file.readline()
        assert [frame.stop for frame in read_frames(file)][-1] == os.fstat(file.fileno()).st_size
    write(tmp_path, [kept])
    with Ledger(tmp_path, "shard-0", "a") as ledger:
        assert ledger.done().tolist() == list(range(kept + 1))


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


def test_a_shard_that_has_said_nothing_yet_keeps_no_other_waiting(tmp_path):
    code = (
        "import pathlib, sys; from spoco_blocks.engine.ledger import Ledger\n"
        "folder = pathlib.Path(sys.argv[1]); ledger = Ledger(folder, 'shard-0', 'a')\n"
        "(folder / 'shard-0.ledger').write_bytes(b''); print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        write(tmp_path, [1], name="shard-1")
        process.communicate(b"go on\n")


def test_shards_that_start_together_after_settings_changed_do_not_wait_for_each_other(tmp_path):
    """Jobs of a cluster start in the same instant, and each is about to empty the ledgers of all."""
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        for name in ("shard-0", "shard-1"):
            write(folder, [0], name=name)
    code = (
        "import pathlib, sys, time; from spoco_blocks.engine.ledger import Ledger\n"
        "print('ready', flush=True); begin = float(sys.stdin.readline())\n"
        "for number, folder in enumerate(sys.argv[2:]):\n"
        "    time.sleep(max(0, begin + number / 10 - time.time()))\n"
        "    with Ledger(pathlib.Path(folder), sys.argv[1], 'b'): time.sleep(0.05)\n"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code, name, *map(str, folders)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in ("shard-0", "shard-1")
    ]
    assert [process.stdout.readline() for process in begun] == [b"ready\n"] * 2
    begin = time.time() + 0.2
    for process in begun:
        process.stdin.write(f"{begin}\n".encode())
        process.stdin.close()
    assert [process.wait() for process in begun] == [0, 0]


def test_missing_block_is_an_index_error(tmp_path):
    write(tmp_path, [0])
    with pytest.raises(IndexError):
        Records(tmp_path, "a", 1)[1]


def test_whoever_asks_for_a_holder_disturbs_nobody(tmp_path):
    lock = tmp_path / "shard-0.lock"
    assert holder(lock) is None
    code = (
        "import pathlib, sys; from spoco_blocks.engine.ledger import Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]), 'shard-0', 'a'); print('held', flush=True); sys.stdin.readline()\n"
        "ledger.commit(0, {})"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert holder(lock) == holder(lock) == process.pid
        process.communicate(b"go on\n")
    assert process.returncode == 0
    assert holder(lock) is None
