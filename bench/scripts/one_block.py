"""Run one block of a stage in this process: prints its peak of memory and what was projected, in MiB."""

import json
import sys
from pathlib import Path

from bench.memory import Planned, task_of
from spoco_blocks.engine.runner import PROCESS_MB


def status_mb(name: str) -> float:
    """Give a value of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    planned = Planned(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    idle = status_mb("VmRSS")
    task, block = task_of(planned)
    # What a block takes that runs after others: compiled code is loaded, handles are open.
    task(block)
    print(
        json.dumps(
            {
                "idle": idle,
                "peak": status_mb("VmHWM"),
                "projected": PROCESS_MB + task.memory_bytes(block) / 2**20,
            }
        )
    )
