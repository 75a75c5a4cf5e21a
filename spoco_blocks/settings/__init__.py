"""The whole configuration (pydantic at the edge, frozen, unknown keys refused)."""

from spoco_blocks.settings.reading import json_schema, load_settings, parse_settings
from spoco_blocks.settings.sections import Settings

__all__ = ["Settings", "json_schema", "load_settings", "parse_settings"]
