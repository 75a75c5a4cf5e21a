"""What every clustering method can do."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.context import Context


class Method(Protocol):
    """A frozen dataclass whose fields are its settings and whose call is pure.

    Attributes
    ----------
    fragments : bool
        True when the labels are pieces that agglomeration still has to join; False when they are final objects.
    """

    fragments: ClassVar[bool]

    @property
    def kind(self) -> str:
        """The method's name in METHODS and in the configuration."""

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the foreground of one array.

        Parameters
        ----------
        embeddings : ndarray of float16 or float32, shape (c, z, y, x)
            Embeddings with coordinates added. Not changed.
        foreground : ndarray of bool, shape (z, y, x)
            Where objects are; everything else stays 0.
        context : Context, optional
            What was decided once per volume.

        Returns
        -------
        ndarray of uint32, shape (z, y, x)
            0, or 1 to k without gaps.
        """
