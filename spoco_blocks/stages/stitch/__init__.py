"""Stage `stitch`: one global decision, on tables alone, about which fragments are one object."""

from spoco_blocks.stages.stitch.run import run_stitch

__all__ = ["run_stitch"]
