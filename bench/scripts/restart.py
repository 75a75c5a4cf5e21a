"""Start again where all blocks but one are done: prints what it took, imports included."""

import json
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()

from bench.empty_blocks import Empty, line_of  # noqa: E402
from spoco_blocks.engine.executors import Execution  # noqa: E402
from spoco_blocks.engine.ledger import Records  # noqa: E402
from spoco_blocks.engine.runner import run  # noqa: E402


def peak_mb() -> float:
    """Most memory that this process has had, in MB; getrusage would give its parent's where that had more."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    blocks = line_of(int(sys.argv[2]), Path(sys.argv[1]))
    summary = run(Empty(), blocks, Execution())
    restarted = time.perf_counter()
    found = {"seconds": restarted - BEGAN, "megabytes": peak_mb(), "computed": summary.computed}
    Records(blocks.folder, blocks.record_identity, len(blocks.grid))
    found |= {"seconds_of_records": time.perf_counter() - restarted, "megabytes_with_records": peak_mb()}
    print(json.dumps(found))
