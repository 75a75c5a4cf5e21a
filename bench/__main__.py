"""``python -m bench NAME [--quick] [--json FILE]``: exit code 1 when a claim falls short."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench.frame import publish

INFRASTRUCTURE = {"__init__", "__main__", "frame", "memory", "peers", "phantoms", "shapes", "ways", "workflow"}


def names() -> list[str]:
    """Give the benchmarks there are: the modules beside this one."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in INFRASTRUCTURE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program's name.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side-by-side benchmarks.")
    parser.add_argument("name", choices=names(), help="the benchmark")
    parser.add_argument("--quick", action="store_true", help="only what can be checked in two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, claims, machine and versions")
    options = parser.parse_args(arguments)
    report = import_module(f"bench.{options.name}").run(options.quick)
    return publish(options.name, report, quick=options.quick, target=options.json)


if __name__ == "__main__":
    sys.exit(main())
