"""The chain finds what is easy to see, whichever way round it is, and tuning gives the best of what it tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantoms import balls
from scipy import ndimage
from scipy.spatial import cKDTree

from spoco_blocks.errors import LabelsError
from spoco_blocks.grid import Box
from spoco_blocks.kernels import classical
from spoco_blocks.kernels.classical import Classical, LabelledPart, compare, excerpts, tune
from spoco_blocks.kernels.contingency import contingency, merge_tables
from spoco_blocks.kernels.scores import scores

ISOTROPIC = (500.0, 500.0, 500.0)


def scored(truth, segments, **options):
    return scores(*contingency(truth.astype(np.uint64), segments), **options)


def membranes(shape=(24, 32, 32), cells=14, seed=0):
    """Cells that fill the image, with bright walls of uneven strength between them."""
    rng = np.random.default_rng(seed)
    centres = rng.random((cells, 3)) * shape
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in shape], indexing="ij"), -1)
    distances, nearest = cKDTree(centres).query(grid.reshape(-1, 3), k=2)
    wall = np.exp(-(((distances[:, 1] - distances[:, 0]) / 2) ** 2)).reshape(shape)
    raw = wall * (0.5 + 0.5 * ndimage.gaussian_filter(rng.random(shape), 2) * 2) + rng.normal(0, 0.05, shape)
    return raw, (nearest[:, 0] + 1).reshape(shape).astype(np.uint32)


def test_tuned_on_one_half_it_finds_the_balls_of_the_other():
    raw, truth = balls()
    left, right = np.s_[:, :, :32], np.s_[:, :, 32:]
    chain, tuned = tune([LabelledPart(raw[left], truth[left])], ISOTROPIC)
    assert chain.bright
    assert chain.flooding == "mask"
    assert tuned.ap50 == 1
    assert scored(truth[right], chain(raw[right], ISOTROPIC)).ap50 > 0.9


def test_dark_objects_are_segmented_as_bright_ones():
    raw, truth = balls((24, 24, 48))
    bright, _ = tune([LabelledPart(raw, truth)], ISOTROPIC)
    dark, _ = tune([LabelledPart(-raw.astype(float), truth)], ISOTROPIC)
    assert dark == replace(bright, bright=False)
    assert np.array_equal(dark(-raw.astype(float), ISOTROPIC), bright(raw, ISOTROPIC))


def test_touching_cells_are_parted_along_their_walls():
    raw, truth = membranes()
    part = LabelledPart(raw, truth)
    _, masked = tune([part], ISOTROPIC, floodings=("mask",))
    chain, best = tune([part], ISOTROPIC)
    assert (chain.bright, chain.flooding) == (False, "image")
    assert best.ap50 > masked.ap50
    assert best.ap50 > 0.7


@pytest.mark.parametrize("sections", [1, 3])
def test_tuning_gives_the_best_that_it_tried_and_its_scores(monkeypatch, sections):
    raw, truth = balls((9, 32, 32), spacing=10, radius=3.5)
    raw, truth = raw[::sections], truth[::sections]
    spacing = (100.0 * sections, 100.0, 100.0)
    seen = []
    attempts = classical._attempts
    monkeypatch.setattr(classical, "_attempts", lambda *a: (seen.append(c[0]) or c for c in attempts(*a)))
    chain, tuned = tune([LabelledPart(raw, truth)], spacing, min_voxels=20)
    assert scored(truth, chain(raw, spacing), min_voxels=20) == tuned
    for other in seen:
        found = scored(truth, other(raw, spacing), min_voxels=20)
        assert (found.ap50, found.sbd) <= (tuned.ap50, tuned.sbd)


def test_sections_far_apart_are_smoothed_less_across():
    image = np.zeros((9, 9, 9))
    image[4, 4, 4] = 1
    smooth = Classical(True, 1.5, 0.0, 1.0).smoothed(image, (4.0, 1.0, 1.0))
    assert smooth[4, 4, 6] > 10 * smooth[6, 4, 4]


def test_images_of_a_stack_keep_their_objects_apart():
    raw, truth = balls((16, 40, 48))
    images = [LabelledPart(raw[z : z + 1], truth[z : z + 1]) for z in (4, 8)]
    chain, tuned = tune(images, (7000.0, 500.0, 500.0))
    tables = [compare(n, part.truth, chain(part.image, (7000.0, 500.0, 500.0))) for n, part in enumerate(images)]
    assert scores(*merge_tables(tables)) == tuned
    assert tuned.n_truth == sum(len(np.unique(part.truth)) - 1 for part in images)
    assert tuned.ap50 > 0.7


def test_excerpts_lie_inside_and_hold_about_what_was_asked():
    box = Box((2, 0, 10), (34, 100, 60))
    (middle,) = excerpts(box, None, 20**3)
    assert box.intersection(middle) == middle
    assert 0.8 * 20**3 < middle.size <= 20**3
    assert excerpts(box, None, box.size) == [box]
    images = excerpts(box, range(2, 34), 4 * 100 * 50)
    assert [image.start[0] for image in images] == [2, 12, 23, 33]
    assert [image.start[0] for image in excerpts(box, range(2, 34, 2), box.size)] == list(range(2, 34, 2))
    assert all(image.shape == (1, 100, 50) for image in images)
    assert len(excerpts(box, range(2, 34), 1)) == 1
    assert len(excerpts(box, range(2, 34), box.size)) == 32


def test_labels_without_a_large_object_are_refused():
    raw, truth = balls((16, 16, 16))
    with pytest.raises(LabelsError, match="at least 100000 voxels"):
        tune([LabelledPart(raw, truth)], ISOTROPIC, min_voxels=100_000)
