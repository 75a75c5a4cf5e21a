"""What the record of a clustered block says of its fragments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_blocks.grid import Block, Box, Triple
from spoco_blocks.kernels.confidence import distance_sums
from spoco_blocks.kernels.contacts import contacts
from spoco_blocks.kernels.faces import face_contacts
from spoco_blocks.kernels.lookup import apply_lookup
from spoco_blocks.kernels.regions import region_statistics
from spoco_blocks.kernels.shape import contacts_by_axis, open_faces, second_moments
from spoco_blocks.stages.embedded import Embedded
from spoco_blocks.stages.output import PredictedOutput
from spoco_blocks.stages.sources import open_source

FACES = ("z0", "z1", "y0", "y1", "x0", "x1")
BEYOND = ("z2", "y2", "x2")
INSIDE = ("z_inside", "y_inside", "x_inside")
# Voxels from one place of the volume's lattice to the next, at which two blocks' labels are compared.
LATTICE = 4


def keep_inner(
    labels: NDArray[np.uint32], block: Block
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.intp]]:
    """Number the labels that reach the inner box 1..k and drop the others: outer and inner labels, and those kept."""
    present = np.zeros(int(labels.max(initial=0)) + 1, bool)
    present[labels[block.inner_local.slices].reshape(-1)] = True
    present[0] = False
    kept = apply_lookup(labels, np.where(present, np.cumsum(present), 0).astype(np.uint32))
    return kept, np.ascontiguousarray(kept[block.inner_local.slices]), np.flatnonzero(present)


def unsought(pieces: NDArray[np.uint32], foreground: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which pieces hold voxels in which nothing was looked for: (k,) bool."""
    found = np.zeros(int(pieces.max(initial=0)) + 1, np.bool_)
    found[pieces[foreground == 0]] = True
    return found[1:]


def intensities(inner: NDArray[np.uint32], network: PredictedOutput, block: Block) -> NDArray[np.float64]:
    """Sum up the raw data of each fragment, for each of its channels: (k, channels)."""
    volume = open_source(network.raw)
    count = int(inner.max(initial=0))
    if not count:
        return np.zeros((0, volume.meta.channels or 1))
    raw = volume.read(block.inner.shifted(network.origin))
    return region_statistics(inner, np.asarray(raw, np.float32).reshape(-1, *inner.shape), count)[1][1:]


def measure(
    labels: NDArray[np.uint32],
    inner: NDArray[np.uint32],
    embeddings: NDArray[Any],
    foreground: NDArray[np.uint8],
    block: Block,
    source: Embedded,
) -> dict[str, NDArray[Any]]:
    """Measure fragments: what they are (inner box), how they embed (outer box), what they touch, and the faces.

    Notes
    -----
    The mean embedding is taken over the outer box, and `distances`, sums of distances to it: a sliver that just reaches
    into a block would have a poor mean of its own. All else counts the inner box only, so that it adds up over blocks.
    `moments` are second moments from the inner box's start, `open_faces` the faces at which a fragment ends inside of
    it, `axis_contacts` those at which another begins (see `kernels.shape`), `certainty` sums of foreground probability.
    Where `inner` numbers gaps behind the fragments, what counts the inner box knows of them as well.
    """
    weights, sums, *_ = region_statistics(labels, embeddings, int(labels.max(initial=0)))
    count = int(inner.max(initial=0))
    probability = foreground[block.inner_local.slices].astype(np.float32)[None] / np.float32(255)
    voxels, certainty, start, stop, positions = region_statistics(inner, probability, count)
    means = sums / np.maximum(weights, 1)[:, None]
    shift = source.to_volume(np.zeros((1, sums.shape[1])), block.outer.start)
    pairs, faces = contacts(labels)
    origin = np.array(block.inner.start)
    tables: dict[str, NDArray[Any]] = {
        "weights": weights[1:],
        "sums": (sums + weights[:, None] * shift)[1:],
        "distances": distance_sums(labels, embeddings, means)[1:],
        "voxels": voxels[1:],
        "start": start[1:] + origin,
        "stop": stop[1:] + origin,
        "positions": positions[1:] + voxels[1:, None] * origin,
        "certainty": certainty[1:, 0],
        "moments": second_moments(inner, count)[1:],
        "open_faces": open_faces(inner, count)[1:],
        "axis_contacts": contacts_by_axis(inner),
        "pairs": pairs,
        "contacts": faces,
    }
    return tables | outer_planes(inner) | beyond(labels, block) | inside(inner)


def outer_planes(inner: NDArray[np.uint32]) -> dict[str, NDArray[np.uint32]]:
    """Give the first and the last plane of a block along each axis."""
    planes = (inner[0], inner[-1], inner[:, 0], inner[:, -1], inner[:, :, 0], inner[:, :, -1])
    return dict(zip(FACES, planes, strict=True))


def inside(inner: NDArray[np.uint32]) -> dict[str, NDArray[np.int64]]:
    """Give what faces what across the middle of a block along each axis: fragment, fragment, voxel faces."""
    found = {}
    for axis, name in enumerate(INSIDE):
        halves = np.split(inner, [inner.shape[axis] // 2], axis=axis)
        if 0 in halves[0].shape:
            found[name] = np.zeros((0, 3), np.int64)
            continue
        pairs, counts = face_contacts(np.take(halves[0], -1, axis), np.take(halves[1], 0, axis))
        found[name] = np.column_stack([pairs.astype(np.int64), counts])
    return found


def beyond(labels: NDArray[np.uint32], block: Block) -> dict[str, NDArray[np.uint32]]:
    """Give what this block thinks of the first plane of each following block, as far as its halo lets it see."""
    inner, seen = block.inner_local, {}
    for axis, (stop, extent) in enumerate(zip(inner.stop, labels.shape, strict=True)):
        if stop < extent:
            plane = tuple(stop if a == axis else s for a, s in enumerate(inner.slices))
            seen[BEYOND[axis]] = labels[plane]
    return seen


def lattice_steps(*, planar: bool) -> Triple:
    """Give the voxels from one place of the lattice to the next along each axis; each image has some."""
    return (1 if planar else LATTICE, LATTICE, LATTICE)


def places(box: Box, *, planar: bool) -> list[range]:
    """Give the places of the volume's lattice that lie in a box, by axis."""
    steps = lattice_steps(planar=planar)
    return [range(-(-a // s), -(-b // s)) for a, b, s in zip(box.start, box.stop, steps, strict=True)]


def on_lattice(labels: NDArray[np.uint32], block: Block, *, planar: bool) -> NDArray[np.uint32]:
    """Give the labels of the outer box at the places of the lattice."""
    steps = lattice_steps(planar=planar)
    part = tuple(slice(-a % s, None, s) for a, s in zip(block.outer.start, steps, strict=True))
    return np.ascontiguousarray(labels[part])
