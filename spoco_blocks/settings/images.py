"""Choosing some of the independent images of a volume."""

from __future__ import annotations

from spoco_blocks.settings.base import Count, CountOrZero, Section


class Images(Section):
    """Some of a volume's independent images, counted from 0."""

    start: CountOrZero = 0
    """The first one."""
    stop: Count | None = None
    """Where they end, excluded; null = the last one is included."""
    step: Count = 1
    """Every so many: 2 with start 0 are the even ones, with start 1 the odd ones."""

    def of(self, count: int) -> range:
        """Give the numbers of the chosen ones among `count` images."""
        return range(count)[self.start : self.stop : self.step]
