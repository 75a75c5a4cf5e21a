"""The default method: components of equal mode within the cores of objects, grown to their borders."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.clustering.find_fragments import find_fragments
from spoco_blocks.kernels.gradient import core_mask, gradient_magnitudes
from spoco_blocks.kernels.merged_modes import merge_modes
from spoco_blocks.kernels.mode_seeking import seek_modes

# Twice the margin within which the loss pulls embeddings of an object to their mean.
OBJECT_DISTANCE = 1.0
# Below this a gradient is no more than the rounding of float16 embeddings.
LEAST_THRESHOLD = 1e-3
# Edge of the regions in which modes are sought, at most.
REGION = 160


@dataclass(frozen=True)
class Modes:
    """Core voxels take their nearest mode, components of equal mode become fragments and grow into the rest.

    Notes
    -----
    Embeddings blend where two objects meet, and a density has no gap there; but they also change quickly there. So the
    voxels of low gradient (the cores) are clustered and the others are grown into afterwards. Distances are in
    embedding units, in which the loss pulls a voxel to within 0.5 of its object's mean and pushes means 4 apart.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}
    fragments: ClassVar[bool] = True

    kind: Literal["modes"] = "modes"
    """Name of the method."""
    bandwidth: float | None = None
    """Radius of the mean-shift kernel; null = as far as embeddings of one object lie apart, by the model's pull term; 1
    where that is not known."""
    merge_radius: float | None = None
    """Modes nearer to each other than this are one; null = the same."""
    gradient_factor: float = 1.3
    """The gradient threshold is this times the quantile below."""
    gradient_quantile: float = 0.2
    """Quantile of the foreground's gradient magnitudes; a fraction of voxels that surely lie inside objects."""
    coreless_quantile: float = 0.65
    """... and of those above that threshold: below it lie the middles of objects that are thin throughout."""
    samples_per_region: int = 20000
    """Core voxels drawn from each region to find modes in."""
    min_mode_voxels: int = 50
    """A mode stands for at least about this many core voxels of its region."""
    min_core_voxels: int = 10
    """Smaller components of core voxels are left to growth; smaller ones of what growth leaves are dropped."""
    blend_voxels: int = 3
    """Objects blend over no more than this; foreground farther from every core belongs to objects that have none."""
    growth_rounds: int = 16
    """How many voxels a fragment may grow beyond its core, give or take two."""
    refinement_sweeps: int = 4
    """How often voxels at borders choose again between neighbouring fragments; those beside what was found late do so
    as often once more."""

    def __post_init__(self) -> None:
        require_positive(self, "bandwidth", "merge_radius", "gradient_factor", "samples_per_region", "min_mode_voxels")
        require_positive(self, "min_core_voxels", "blend_voxels", "growth_rounds", "refinement_sweeps", zero=True)
        require_positive(self, "gradient_quantile", "coreless_quantile", zero=True, at_most=1)

    @property
    def radius(self) -> float:
        """The bandwidth, decided."""
        return OBJECT_DISTANCE if self.bandwidth is None else self.bandwidth

    @property
    def merging(self) -> float:
        """The merge radius, decided."""
        return OBJECT_DISTANCE if self.merge_radius is None else self.merge_radius

    def suited(self, object_distance: float) -> Modes:
        """Give the same with what is null decided by how far embeddings of one object lie apart."""
        bandwidth, merge_radius = (
            object_distance if chosen is None else chosen for chosen in (self.bandwidth, self.merge_radius)
        )
        return replace(self, bandwidth=bandwidth, merge_radius=merge_radius)

    def __call__(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> NDArray[np.uint32]:
        """Label the fragments of one array; see `Method`."""
        return self.find(embeddings, foreground, context)[0]

    def find(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], context: Context | None = None
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Label the fragments of one array, and say which of them have no core.

        Parameters
        ----------
        embeddings : ndarray of float16 or float32, shape (c, z, y, x)
            Embeddings with coordinates added. Not changed.
        foreground : ndarray of bool, shape (z, y, x)
            Where objects are.
        context : Context, optional
            What was decided once per volume.

        Returns
        -------
        labels : ndarray of uint32, shape (z, y, x)
            0, or 1 to k without gaps.
        coreless : ndarray of bool, shape (k + 1,)
            The fragments in which the embedding nowhere changes as little as in the cores of the volume: thin objects,
            mostly. Their borders are less sure.

        Notes
        -----
        Every second voxel along each axis is clustered first (`context.step`); the others lie between voxels of one
        object, mostly, and only have to be compared with its mean. What the lattice missed is found in a second look.
        O(n c) time; two passes over the embeddings where modes are given. Memory beside them: about 13 bytes per voxel
        where objects are many voxels wide, and 90 + 8 c where most voxels are at borders.
        """
        context = context or Context()
        if embeddings.dtype not in (np.float16, np.float32):
            embeddings = embeddings.astype(np.float32)
        threshold, coreless, modes = context.gradient_threshold, context.coreless_threshold, context.modes
        if threshold is None or coreless is None:
            sample = self.gradient_sample(embeddings, foreground)
            threshold = self.gradient_threshold(sample) if threshold is None else threshold
            coreless = self.coreless_threshold(sample, threshold) if coreless is None else coreless
        if modes is None:
            modes = self._seek_by_regions(embeddings, foreground, threshold, context.seed)
        return find_fragments(self, embeddings, foreground, (threshold, coreless, modes), context)

    def gradient_sample(self, embeddings: NDArray[Any], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Give gradient magnitudes of the foreground, for `gradient_threshold`; those of several regions may be joined.

        Parameters
        ----------
        embeddings : ndarray of float16 or float32, shape (c, z, y, x)
            Embeddings of a region.
        foreground : ndarray of bool, shape (z, y, x)
            Where objects are.

        Returns
        -------
        ndarray of float32, shape (m,)
            The magnitudes in every eighth row; in fewer where there are very many voxels.
        """
        return gradient_magnitudes(embeddings, foreground, every=int(np.clip(foreground.size // 2**18, 8, 64)))

    def gradient_threshold(self, values: NDArray[np.float32]) -> float:
        """Decide below which gradient a voxel is core.

        Parameters
        ----------
        values : ndarray of float32, shape (m,)
            Gradient magnitudes of foreground voxels.

        Returns
        -------
        float
            `gradient_factor` times their `gradient_quantile`, but more than rounding errors.
        """
        if values.size == 0:
            return LEAST_THRESHOLD
        return max(LEAST_THRESHOLD, self.gradient_factor * float(np.quantile(values, self.gradient_quantile)))

    def coreless_threshold(self, values: NDArray[np.float32], threshold: float) -> float:
        """Decide below which gradient a voxel that is far from every core may lie amidst a thin object.

        Parameters
        ----------
        values : ndarray of float32, shape (m,)
            Gradient magnitudes of foreground voxels.
        threshold : float
            The gradient threshold of cores.

        Returns
        -------
        float
            The `coreless_quantile` of those above the threshold: of a transition between two objects, the rest.
        """
        above = values[values > threshold]
        return float(np.quantile(above, self.coreless_quantile)) if above.size else threshold

    def seek(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], threshold: float, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the modes of a region.

        Parameters
        ----------
        embeddings : ndarray of float16 or float32, shape (c, z, y, x)
            Embeddings of the region.
        foreground : ndarray of bool, shape (z, y, x)
            Where objects are.
        threshold : float
            The gradient threshold.
        seed : int
            Seed of the draw of samples.

        Returns
        -------
        modes : ndarray of float32, shape (k, c)
            The modes, by falling number of samples.
        counts : ndarray of int64, shape (k,)
            Samples within the bandwidth of each.
        """
        places, every = self._core_places(embeddings, foreground, threshold)
        return self._seek_among(embeddings, places, every, seed)

    def _core_places(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], threshold: float, regions: int = 1
    ) -> tuple[NDArray[np.intp], int]:
        """Give core voxels, a few times as many as are drawn, and of every how many rows they are."""
        every = int(np.clip(np.count_nonzero(foreground) // (4 * self.samples_per_region * regions), 1, 64))
        return np.flatnonzero(core_mask(embeddings, foreground, threshold, every)), every

    def _seek_among(
        self, embeddings: NDArray[Any], places: NDArray[np.intp], every: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        samples = draw(embeddings, places, self.samples_per_region, seed)
        share = len(samples) / max(1, len(places) * every)
        return seek_modes(samples, self.radius, max(4, int(self.min_mode_voxels * share)), self.merging)

    def _seek_by_regions(
        self, embeddings: NDArray[Any], foreground: NDArray[np.bool_], threshold: float, seed: int
    ) -> NDArray[np.float32]:
        """Find the modes of an array as `calibrate` does of a volume: a sample holds a limited number of objects."""
        counts = [-(-extent // REGION) for extent in foreground.shape]
        places, every = self._core_places(embeddings, foreground, threshold, math.prod(counts))
        corners = [
            index * count // extent
            for index, count, extent in zip(
                np.unravel_index(places, foreground.shape), counts, foreground.shape, strict=True
            )
        ]
        region = np.ravel_multi_index(corners, counts)
        found = [self._seek_among(embeddings, places[region == r], every, seed) for r in range(math.prod(counts))]
        modes, samples = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return merge_modes(modes.astype(np.float64), samples, self.merging)[0].astype(np.float32)


def draw(embeddings: NDArray[Any], places: NDArray[np.intp], count: int, seed: int) -> NDArray[np.float32]:
    """Draw embeddings without replacement, in random order.

    Parameters
    ----------
    embeddings : ndarray of float16 or float32, shape (c, z, y, x)
        The embedding of every voxel.
    places : ndarray of int, shape (m,)
        Flat indices of the voxels to draw from.
    count : int
        How many to draw at most.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of float32, shape (min(count, m), c)
        The drawn embeddings.
    """
    drawn = np.random.default_rng(seed).choice(places, min(count, len(places)), replace=False)
    return np.stack([channel.reshape(-1)[drawn] for channel in embeddings], axis=1).astype(np.float32)
