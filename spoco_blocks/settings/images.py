"""Choosing some of the independent images of a volume."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Images(BaseModel):
    """Some of a volume's independent images, counted from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    start: Annotated[int, Field(ge=0)] = 0
    """The first one."""
    stop: Annotated[int, Field(ge=1)] | None = None
    """Where they end, excluded; null = the last one is included."""
    step: Annotated[int, Field(ge=1)] = 1
    """Every so many: 2 with start 0 are the even ones, with start 1 the odd ones."""

    def of(self, count: int) -> range:
        """Give the numbers of the chosen ones among `count` images."""
        return range(count)[self.start : self.stop : self.step]
