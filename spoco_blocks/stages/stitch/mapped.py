"""Arrays that need not fit in memory: they lie in files, are mapped, and are gone through part by part."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.errors import ResourceError

# Entries looked at together.
PART = 2**20


def parts(count: int, *arrays: NDArray[Any]) -> Iterator[slice]:
    """Cut entries into parts that fit in memory; what is mapped of the arrays is let go before each, and at the end."""
    for start in range(0, count, PART):
        let_go(*arrays)
        yield slice(start, min(start + PART, count))
    let_go(*arrays)


def let_go(*arrays: NDArray[Any]) -> None:
    """Take the pages of mapped files out of this process; they are read again when they are needed.

    Notes
    -----
    The system would do so itself, but only when memory is short, and a batch system may count them before that.
    """
    for array in arrays:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        if base is not None:
            base.madvise(mmap.MADV_DONTNEED)


def largest(array: NDArray[Any]) -> int:
    """Give the largest entry, 0 of none."""
    return max((int(array[part].max()) for part in parts(len(array), array)), default=0)


@lru_cache(maxsize=16)
def open_table(path: Path, identity: str) -> NDArray[Any]:
    """Map a table once per process; `identity` makes sure that it is that of this run."""
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


class Workspace:
    """Arrays that a computation writes, and others that it reads, of which only a part is in memory at a time.

    Parameters
    ----------
    folder : Path or None
        Where its own arrays lie, in files that are written anew; None = in memory.
    *read : ndarray
        Arrays that it reads, mapped or not.
    """

    def __init__(self, folder: Path | None, *read: NDArray[Any]) -> None:
        self._folder, self._arrays = folder, list(read)

    def zeros(self, name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Give an array of zeros, which may not be empty.

        Raises
        ------
        ResourceError
            When its file has no room on the disk; without room, writing to mapped memory would end the process.
        """
        if self._folder is None:
            return np.zeros(shape, dtype)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        # Another file, not an emptied one, which may still be mapped.
        path.unlink(missing_ok=True)
        _reserve(path, int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize)
        array = np.asarray(np.memmap(path, dtype, "r+", shape=shape))
        self._arrays.append(array)
        return array

    def parts(self, count: int) -> Iterator[slice]:
        """Cut entries into parts; see `parts`."""
        return parts(count, *self._arrays)

    def spans(self, indices: NDArray[np.int64]) -> Iterator[slice]:
        """Cut rising indices of entries, (k,), into those of one part of the entries each; lets go as `parts` does.

        Notes
        -----
        Few entries from everywhere bring as many pages into memory as all: the system maps what lies around them.
        """
        starts = np.flatnonzero(np.diff(indices // PART, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(indices)], strict=False):
            self.let_go()
            yield slice(start, stop)
        self.let_go()

    def gather(self, indices: NDArray[np.int64], *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """Give what arrays hold at rising indices, (k,), in memory."""
        found = [np.empty((len(indices), *array.shape[1:]), array.dtype) for array in arrays]
        for span in self.spans(indices):
            for values, array in zip(found, arrays, strict=True):
                values[span] = array[indices[span]]
        return found

    def let_go(self) -> None:
        """Let go of all that is mapped; see `let_go`."""
        let_go(*self._arrays)


def _reserve(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise ResourceError(
            f"{path} needs {size / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are free there. Make room, or put the "
            "results on another disk, and start again: what was decided is kept."
        )
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
