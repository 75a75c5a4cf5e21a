"""Run stages in worker processes, and print for each what was compiled while its workers ran."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numba
from pipeline import run_stage

from spoco_blocks.engine import runner
from spoco_blocks.engine.executors import Execution
from spoco_blocks.engine.layout import Layout
from spoco_blocks.settings import jobs, parse_settings


def compiled() -> set[str]:
    """Give the files of compiled code that there are."""
    return {path.name for path in Path(numba.config.CACHE_DIR).rglob("*.nbc")}


def main(tree: str, results: str, name: str, *stages: str) -> None:
    """Run the stages of a segmentation."""
    settings, open_pool = parse_settings(json.loads(tree)), runner.open_pool
    before, by_workers = [], set()

    @contextmanager
    def open_and_look(*arguments):
        before.append(compiled())
        with open_pool(*arguments) as pool:
            yield pool
        by_workers.update(compiled() - before[-1])

    runner.open_pool = open_and_look
    found = {}
    for stage in stages:
        by_workers.clear()
        job = jobs.segmentation_job(settings, stage, name)
        run_stage(stage, job, Layout(Path(results)), Execution("dask", 2))
        found[stage] = {"by workers": sorted(by_workers), "before": len(before[-1])}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
