"""Stage `plan`: cut a volume into blocks, check that model and volume fit, create the stores that blocks write."""

from spoco_blocks.stages.plan.planned import Plan
from spoco_blocks.stages.plan.stores import forget, image_fits, image_layout, store_fits, store_layout

__all__ = ["Plan", "forget", "image_fits", "image_layout", "store_fits", "store_layout"]
