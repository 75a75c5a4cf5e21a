"""Empty blocks with daisy: prints what one block per worker took, and all of them, in seconds. Runs where daisy is."""

import json
import sys
import time
from pathlib import Path

import daisy


def nothing(block):
    """Do the work of a block."""


def seconds_of(blocks: int, workers: int) -> float:
    """Run so many blocks of one voxel."""
    task = daisy.Task(
        task_id="nothing",
        total_roi=daisy.Roi((0, 0, 0), (1, 1, blocks)),
        read_roi=daisy.Roi((0, 0, 0), (1, 1, 1)),
        write_roi=daisy.Roi((0, 0, 0), (1, 1, 1)),
        process_function=nothing,
        read_write_conflict=False,
        max_workers=workers,
        tracking_path=str(Path.cwd() / f"blocks-{blocks}"),
    )
    start = time.perf_counter()
    if not daisy.run_blockwise(task, progress=False, summary=False):
        sys.exit("daisy did not finish all blocks")
    return time.perf_counter() - start


if __name__ == "__main__":
    count, most = int(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({"start": seconds_of(most, most), "all": seconds_of(max(count, most + 1), most)}))
