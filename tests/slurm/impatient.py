"""Snakemake that looks at its jobs every three seconds: its plugin waits ten longer each time that nothing ended."""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 3, lambda self, seconds: None)

if __name__ == "__main__":
    main(sys.argv[1:])
