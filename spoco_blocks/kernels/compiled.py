"""Where compiled kernels are kept, so that each is compiled once per user and kind of machine."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import llvmlite
import llvmlite.binding
import numba
import numpy as np


def versions() -> str:
    """Name everything that compiled code depends on.

    Returns
    -------
    str
        The name of a folder: digest of all kernels, versions, processor.

    Notes
    -----
    Numba itself looks at the file of a function and at its own version. But a compiled kernel holds those of other
    files that it calls, and knows how numpy lays out arrays: where these change, it would stay as it was. Reads 200 kB
    in 5 ms.
    """
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source.update(path.read_bytes())
    return "-".join(
        [
            source.hexdigest()[:12],
            f"python{platform.python_version()}",
            f"numba{numba.__version__}",
            f"llvmlite{llvmlite.__version__}",
            f"numpy{np.__version__}",
            llvmlite.binding.get_host_cpu_name(),
        ]
    )


def folders() -> Iterator[Path]:
    """Give the places for compiled kernels, best first: where it was asked for, the user's cache, a temporary one."""
    name, asked_for = versions(), os.environ.get("NUMBA_CACHE_DIR")
    if asked_for:
        yield Path(asked_for) / name
    # Nobody's home: in some containers there is none.
    with suppress(RuntimeError):
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spoco-blocks" / name
    yield Path(tempfile.gettempdir()) / f"spoco-blocks-{os.getuid()}-{name}"


def keep_compiled() -> Path | None:
    """Have kernels kept in a folder of these versions; comes before the first kernel is defined.

    Returns
    -------
    Path or None
        The folder; None where none can be written to, and numba looks for another.
    """
    for folder in folders():
        if _is_ours(folder):
            numba.config.CACHE_DIR = str(folder)
            return folder
    return None


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder is there or can be made, and written to by us and nobody else: code is loaded from it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        facts = folder.stat()
    except OSError:
        return False
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o022
