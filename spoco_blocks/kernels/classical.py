"""Segmentation without learning: smooth, threshold, distance transform, seeds, watershed; tuned on labelled objects.

The baseline that every learnt segmentation is compared with. Objects are what is brighter, or darker, than what lies
between them: nuclei (bright), cells in a membrane stain (dark), neurites in electron microscopy (bright).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import pi, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import find_boundaries, relabel_sequential, watershed

from spoco_blocks.errors import LabelsError
from spoco_blocks.grid import Box, triple
from spoco_blocks.kernels.contingency import Counts, Pairs, contingency, merge_tables
from spoco_blocks.kernels.scores import Scores, scores

Floats = NDArray[np.float32]
Labels = NDArray[np.uint32]
Lengths = tuple[float, float, float]
Flooding = Literal["mask", "image"]

# Ids of different images are kept apart by the bits above.
_IMAGE_SHIFT = 32
# Candidates, as fractions of the labelled objects' radius, of their share of the voxels, and of their voxels.
_SIGMAS = (0.1, 0.2)
_SHARES = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6)
_DISTANCES = (0.25, 0.5, 1.0)
_SIZES = (0.0, 0.1, 0.25, 0.5)
_LOWEST_QUANTILE = 0.02


@dataclass(frozen=True)
class Classical:
    """The chain; lengths are in units of the finest voxel.

    Attributes
    ----------
    bright : bool
        Whether objects are brighter than what lies between them.
    sigma : float
        Width of the Gaussian that smooths the image.
    threshold : float
        Smoothed voxels above this (of the negative image when objects are dark) are inside.
    distance : float
        Seeds are maxima of the distance transform within this distance.
    flooding : {"mask", "image"}
        "mask" floods the distance transform inside the threshold; "image" floods the smoothed image everywhere, so that
        objects meet on the ridge between them.
    min_voxels : int
        Segments under this size are dropped.
    """

    bright: bool
    sigma: float
    threshold: float
    distance: float
    flooding: Flooding = "mask"
    min_voxels: int = 0

    def __call__(self, image: NDArray[Any], spacing: Lengths) -> Labels:
        """Segment an image.

        Parameters
        ----------
        image : ndarray, shape (z, y, x)
            Intensities; a 2D image has z = 1.
        spacing : tuple of float
            Voxel size along z, y, x, in any unit.

        Returns
        -------
        ndarray of uint32, shape (z, y, x)
            Segments 1 to n, 0 = none.

        Notes
        -----
        About 40 bytes a voxel.
        """
        lengths = _in_finest_voxels(spacing, image.shape)
        smooth = self.smoothed(image, lengths)
        found = self.split(smooth, *self.depth(smooth, lengths), lengths)
        kept = np.bincount(found.ravel()) >= max(1, self.min_voxels)
        kept[0] = False
        numbers: Labels = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)[found]
        return numbers

    def smoothed(self, image: NDArray[Any], lengths: Lengths) -> Floats:
        """Give the smoothed image, in which objects are bright."""
        signal = image.astype(np.float32) * (1 if self.bright else -1)
        smooth: Floats = ndimage.gaussian_filter(signal, [self.sigma / length for length in lengths])
        return smooth

    def depth(self, smooth: Floats, lengths: Lengths) -> tuple[NDArray[np.bool_], Floats]:
        """Give what is inside, and how deep; smoothed by a voxel, so that flat maxima become one."""
        inside = smooth > self.threshold
        depth = ndimage.distance_transform_edt(inside, sampling=lengths).astype(np.float32)
        return inside, ndimage.gaussian_filter(depth, [1 / length for length in lengths])

    def split(self, smooth: Floats, inside: NDArray[np.bool_], depth: Floats, lengths: Lengths) -> Labels:
        """Flood from the deepest places."""
        window = [2 * round(self.distance / length) + 1 for length in lengths]
        peaks = (depth == ndimage.maximum_filter(depth, window)) & inside
        seeds, _ = ndimage.label(peaks, np.ones((3, 3, 3)))
        flooded = watershed(-depth, seeds, mask=inside) if self.flooding == "mask" else watershed(-smooth, seeds)
        return np.asarray(flooded, np.uint32)


@dataclass(frozen=True)
class LabelledPart:
    """A labelled image, or part of one.

    Attributes
    ----------
    image : ndarray, shape (z, y, x)
        Intensities.
    truth : ndarray of unsigned integers, shape (z, y, x)
        All objects of the part; 0 = none.
    """

    image: NDArray[Any]
    truth: NDArray[Any]


def excerpts(box: Box, images: Sequence[int] | None, max_voxels: int) -> list[Box]:
    """Choose what the chain is tuned on: evenly spaced whole images, or the middle of a volume.

    Parameters
    ----------
    box : Box
        All that is labelled.
    images : sequence of int or None
        The labelled ones, where the first axis counts images that have nothing to do with each other; else None.
    max_voxels : int
        To be taken, about; one image at least.
    """
    if images is None:
        edge = max(box.shape)
        while prod(min(extent, edge) for extent in box.shape) > max_voxels and edge > 1:
            edge -= 1
        start = triple(a + max(0, extent - edge) // 2 for a, extent in zip(box.start, box.shape, strict=True))
        return [Box(start, triple(a + min(extent, edge) for a, extent in zip(start, box.shape, strict=True)))]
    _, height, width = box.shape
    taken = np.linspace(0, len(images) - 1, max(1, min(len(images), max_voxels // (height * width)))).round()
    (_, y0, x0), (_, y1, x1) = box.start, box.stop
    return [Box((images[i], y0, x0), (images[i] + 1, y1, x1)) for i in taken.astype(int).tolist()]


def compare(number: int, truth: NDArray[Any], segments: Labels) -> tuple[Pairs, Counts]:
    """Give the contingency table of one of several images, whose ids are kept apart from those of the others.

    Parameters
    ----------
    number : int
        Which image.
    truth : ndarray of unsigned integers, shape (z, y, x)
        Its objects.
    segments : ndarray of uint32, shape (z, y, x)
        Its segments.
    """
    pairs, counts = contingency(truth, segments)
    return np.where(pairs > 0, pairs + (np.uint64(number) << np.uint64(_IMAGE_SHIFT)), np.uint64(0)), counts


def tune(
    parts: Sequence[LabelledPart],
    spacing: Lengths,
    min_voxels: int = 0,
    floodings: Sequence[Flooding] = ("mask", "image"),
) -> tuple[Classical, Scores]:
    """Choose the chain's parameters by AP50, and where it is equal by SBD.

    Parameters
    ----------
    parts : sequence of LabelledPart
        What the chain may learn from. Intensities have to be comparable.
    spacing : tuple of float
        Voxel size along z, y, x, in any unit.
    min_voxels : int
        Objects under this size count neither as found nor as missed.
    floodings : sequence of {"mask", "image"}
        What may be flooded; "image" is tried only where objects take more than half of the voxels.

    Returns
    -------
    chain : Classical
        The best of 144 combinations, or 288 when both are flooded; of equals the first.
    scores : Scores
        Its scores on what it was tuned on.

    Raises
    ------
    LabelsError
        When no object is large enough.

    Notes
    -----
    Candidates follow from the size of the labelled objects and from the share of the voxels that they take, so that
    nothing is left to choose. At most 72 watersheds: one to two minutes for a million voxels.
    """
    parts = [LabelledPart(p.image, relabel_sequential(p.truth.astype(np.int64))[0].astype(np.uint32)) for p in parts]
    sizes = np.concatenate([np.bincount(part.truth.ravel())[1:] for part in parts])
    sizes = sizes[sizes >= max(1, min_voxels)]
    if not len(sizes):
        raise LabelsError(
            f"the classical baseline needs labelled objects of at least {max(1, min_voxels)} voxels to be tuned on; "
            "the part that it sees holds none."
        )
    lengths = _in_finest_voxels(spacing, parts[0].image.shape)
    median = float(np.median(sizes))
    content = median * prod(lengths)
    radius = (content / pi) ** 0.5 if len(parts[0].image) == 1 else (0.75 * content / pi) ** (1 / 3)
    best: tuple[Classical, Scores] | None = None
    for chain, tables in _attempts(parts, lengths, float(radius), floodings):
        for smallest in (round(fraction * median) for fraction in _SIZES):
            found = scores(*merge_tables([_dropped(*table, smallest) for table in tables]), min_voxels=min_voxels)
            if best is None or (found.ap50, found.sbd) > (best[1].ap50, best[1].sbd):
                best = replace(chain, min_voxels=smallest), found
    assert best is not None
    return best


def _attempts(
    parts: Sequence[LabelledPart], lengths: Lengths, radius: float, floodings: Sequence[Flooding]
) -> Iterator[tuple[Classical, list[tuple[Pairs, Counts]]]]:
    """Give every combination with its contingency tables; what several share is computed once."""
    share = sum(np.count_nonzero(part.truth) for part in parts) / sum(part.truth.size for part in parts)
    quantiles = sorted({max(_LOWEST_QUANTILE, 1 - fraction * share) for fraction in _SHARES})
    bright = _brighter_inside(parts)
    tried = [flooding for flooding in floodings if flooding == "mask" or share > 0.5]
    for sigma in (fraction * radius for fraction in _SIGMAS):
        start = Classical(bright, sigma, threshold=0.0, distance=0.0)
        smooth = [start.smoothed(part.image, lengths) for part in parts]
        for threshold in np.quantile(np.concatenate([s.ravel() for s in smooth]), quantiles).tolist():
            masked = replace(start, threshold=threshold)
            depths = [masked.depth(s, lengths) for s in smooth]
            for distance, flooding in product(_DISTANCES, tried):
                chain = replace(masked, distance=distance * radius, flooding=flooding)
                found = [chain.split(s, *d, lengths) for s, d in zip(smooth, depths, strict=True)]
                yield chain, [compare(n, p.truth, f) for n, (p, f) in enumerate(zip(parts, found, strict=True))]


def _dropped(pairs: Pairs, counts: Counts, min_voxels: int) -> tuple[Pairs, Counts]:
    """Let segments under a size be background."""
    ids, index = np.unique(pairs[:, 1], return_inverse=True)
    small = np.bincount(index, counts, len(ids)) < min_voxels
    kept = pairs.copy()
    kept[small[index], 1] = 0
    return kept, counts


def _in_finest_voxels(spacing: Lengths, shape: tuple[int, ...]) -> Lengths:
    """Give the voxel size in units of the finest; that across a single image does not count."""
    z, y, x = spacing
    finest = min(y, x) if shape[0] == 1 else min(spacing)
    return (1.0 if shape[0] == 1 else z / finest), y / finest, x / finest


def _brighter_inside(parts: Sequence[LabelledPart]) -> bool:
    """Compare the voxels inside of objects with those at their borders and outside."""
    sums, counts = np.zeros(2), np.zeros(2)
    for part in parts:
        inside = (part.truth > 0) & ~find_boundaries(part.truth, mode="thick")
        sums += [part.image[inside].sum(dtype=np.float64), part.image[~inside].sum(dtype=np.float64)]
        counts += [np.count_nonzero(inside), np.count_nonzero(~inside)]
    means = sums / np.maximum(counts, 1)
    return bool(means[0] > means[1])
