"""The default method: components of equal mode within the cores of objects, grown to their borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.clustering.checks import require_positive
from spoco_blocks.clustering.context import Context
from spoco_blocks.kernels.blends import blend_owners
from spoco_blocks.kernels.components import count_voxels, equal_components
from spoco_blocks.kernels.coreless import gradients_at, label_places
from spoco_blocks.kernels.cores import label_cores
from spoco_blocks.kernels.gradient import core_mask, gradient_magnitudes
from spoco_blocks.kernels.growth import Growth
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.mode_seeking import seek_modes

# Below this a gradient is no more than the rounding of float16 embeddings.
LEAST_THRESHOLD = 1e-3


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
    bandwidth: float = 1.0
    """Radius of the mean-shift kernel."""
    merge_radius: float = 1.0
    """Modes nearer to each other than this are one."""
    gradient_factor: float = 1.3
    """The gradient threshold is this times the quantile below."""
    gradient_quantile: float = 0.2
    """Quantile of the foreground's gradient magnitudes; a fraction of voxels that surely lie inside objects."""
    samples_per_region: int = 20000
    """Core voxels drawn from each region to find modes in."""
    min_mode_voxels: int = 50
    """A mode stands for at least about this many core voxels of its region."""
    min_core_voxels: int = 10
    """Smaller components of core voxels are left to growth; smaller ones of what growth leaves are dropped."""
    blend_voxels: int = 3
    """Objects blend over no more than this; foreground farther from every core belongs to objects that have none."""
    growth_rounds: int = 16
    """How many voxels a fragment may grow beyond its core."""
    refinement_sweeps: int = 16
    """How often grown voxels choose again between neighbouring fragments."""

    def __post_init__(self) -> None:
        require_positive(self, "bandwidth", "merge_radius", "gradient_factor", "samples_per_region", "min_mode_voxels")
        require_positive(self, "min_core_voxels", "blend_voxels", "growth_rounds", "refinement_sweeps", zero=True)
        require_positive(self, "gradient_quantile", zero=True, at_most=1)

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
        O(n c) time; two passes over the embeddings where modes are given. Memory beside them: about 25 bytes per voxel.
        """
        context = context or Context()
        threshold, modes = context.gradient_threshold, context.modes
        if threshold is None:
            threshold = self.gradient_threshold(self.gradient_sample(embeddings, foreground))
        if modes is None:
            modes, _ = self.seek(embeddings, foreground, threshold, context.seed)
        reach = max(self.bandwidth, self.merge_radius)
        labels, sizes, sums = label_cores(embeddings, foreground, threshold, modes, reach, self.min_core_voxels)
        growth = Growth(labels, embeddings, foreground, sums / np.maximum(sizes, 1)[:, None])
        del labels
        growth.grow(min(self.blend_voxels, self.growth_rounds))
        self._add_coreless(growth, embeddings, context.seed)
        growth.grow(self.growth_rounds - min(self.blend_voxels, self.growth_rounds))
        if self.blend_voxels:
            growth.rename(blend_owners(growth.labels, embeddings, foreground, growth.means, self.blend_voxels))
        growth.refine(self.refinement_sweeps)
        labels, origin = _numbered(growth.labels, len(growth.means))
        coreless = origin >= len(sizes)
        left, _ = growth.unreached
        if not len(left):
            return labels, coreless
        # What no core reaches and has none: fragments of their own rather than holes in the foreground.
        alone = np.zeros(labels.shape, np.int32)
        alone.reshape(-1)[left] = 1
        rest, voxels = equal_components(alone, max(1, self.min_core_voxels))
        labels = np.where(rest > 0, rest + np.uint32(len(origin) - 1), labels)
        return labels, np.concatenate([coreless, np.ones(len(voxels) - 1, np.bool_)])

    def _add_coreless(self, growth: Growth, embeddings: NDArray[Any], seed: int) -> None:
        """Find objects whose whole width changes quickly: their least changing voxels are cores for them."""
        places, vectors = growth.unreached
        if len(places) < max(1, self.min_core_voxels):
            return
        gradients = gradients_at(embeddings, places)
        core = np.flatnonzero(gradients < self.gradient_threshold(gradients))
        drawn = np.random.default_rng(seed).permutation(core)[: self.samples_per_region // 4]
        least = max(4, self.min_core_voxels * len(drawn) // max(1, len(core)))
        modes, _ = seek_modes(vectors[drawn], self.bandwidth, least, self.merge_radius)
        if not len(modes):
            return
        reach = max(self.bandwidth, self.merge_radius)
        found, means = label_places(
            places[core], vectors[core], embeddings.shape[1:], modes, reach, self.min_core_voxels
        )
        labels = np.zeros(len(places), np.uint32)
        labels[core] = found
        growth.seed(labels, means)

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
            The magnitudes in every eighth row.
        """
        return gradient_magnitudes(embeddings, foreground, every=8)

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
        # A few times as many core voxels as are drawn.
        every = int(np.clip(np.count_nonzero(foreground) // (8 * self.samples_per_region), 1, 8))
        places = np.flatnonzero(core_mask(embeddings, foreground, threshold, every))
        samples = draw(embeddings, places, self.samples_per_region, seed)
        share = len(samples) / max(1, len(places) * every)
        return seek_modes(samples, self.bandwidth, max(4, int(self.min_mode_voxels * share)), self.merge_radius)


def _numbered(labels: NDArray[np.uint32], count: int) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """Close the gaps in labels below a count, and give what each new label was before."""
    present = count_voxels(labels, count) > 0
    present[0] = True
    return apply_lookup(labels, (np.cumsum(present) - 1).astype(np.uint32)), np.flatnonzero(present)


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
