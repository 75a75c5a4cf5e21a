"""Stage `plan`: cut a volume into blocks, check that model and volume fit, create the stores that blocks write."""

from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.stages.plan.stores import store_fits, store_layout

__all__ = ["Plan", "store_fits", "store_layout"]
