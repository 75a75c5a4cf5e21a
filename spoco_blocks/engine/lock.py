"""Locks that die with their process: whoever is killed leaves nothing to clean up.

They are POSIX record locks: a file system that several nodes share must offer these across nodes, as NFS does from
version 4, Lustre where it is mounted with ``flock``, BeeGFS with ``tuneUseGlobalFileLocks``. Each names its last owner.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from spoco_blocks.errors import LedgerError

# Long enough for a process that is just letting go, or being killed.
PATIENCE_S = 5.0
# struct flock of 64-bit Linux: type, whence, start, length, process; macOS and the BSDs order it otherwise.
_LINUX = sys.platform.startswith("linux")
_FLOCK = struct.Struct("@hhqqi" if _LINUX else "@qqihh")


def acquire(path: Path, patience_s: float = PATIENCE_S) -> BinaryIO:
    """Take a lock; closing the file gives it back.

    Parameters
    ----------
    path : Path
        A file that is used for nothing else: a POSIX lock is lost when any descriptor of its file is closed.
    patience_s : float
        How long to wait for another process, in seconds.

    Raises
    ------
    LedgerError
        When another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    while True:
        # Not emptied on opening: that is its owner's to do.
        file = path.open("a+b")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise LedgerError(
                f"{path} is held by {owner(path)}: another process is doing this work, perhaps one that outlived a "
                "stopped run. Wait for it, or stop it (what it finished is kept), and start again."
            ) from None
        file.truncate(0)
        file.write(this_process().encode())
        file.flush()
        return file


def this_process() -> str:
    """Name this process, its machine and its Slurm job."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"process {os.getpid()} of {socket.gethostname()}" + (f", Slurm job {job}" if job else "")


def owner(path: Path) -> str:
    """Say which process took a lock last. The process that holds it must not ask."""
    try:
        return path.read_text() or "a process that did not say its name"
    except FileNotFoundError:
        return "nobody"


def held_in(folder: Path) -> dict[str, str]:
    """Give the locks of a folder that are held, and by whom."""
    return {path.stem: owner(path) for path in sorted(folder.glob("*.lock")) if holder(path) is not None}


@contextmanager
def held(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold a lock for the length of a block."""
    file = acquire(path, patience_s)
    try:
        yield
    finally:
        file.close()


def holder(path: Path) -> int | None:
    """Tell which process holds a lock, without taking it even for a moment.

    Parameters
    ----------
    path : Path
        The lock's file. A process that holds the lock itself must not ask: closing the file would give it back.

    Returns
    -------
    int or None
        Its number, 0 where that is not known here; None when nobody holds it.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        asked = (fcntl.F_WRLCK, 0, 0, 0, 0) if _LINUX else (0, 0, 0, fcntl.F_WRLCK, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, _FLOCK.pack(*asked)))
    kind, process = (answer[0], answer[4]) if _LINUX else (answer[3], answer[2])
    return None if kind == fcntl.F_UNLCK else max(0, int(process))
