"""Anchors are drawn as the paper says: from within objects, and where no earlier anchor covers."""

from __future__ import annotations

import loss_oracles as slow
import pytest
import torch

from spoco_blocks.learn import anchors, losses

DELTA_VAR = 0.8


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("spread", "count"), [(0.3, 20), (1.0, 20), (1.0, 4), (3.0, 20)])
def test_covering_is_that_of_the_twin(seed, spread, count):
    f = torch.randn(4, 150, generator=seeded(seed)) * spread
    views = f, f + 0.3 * torch.randn(4, 150, generator=seeded(seed + 100))
    unlabelled = torch.arange(7, 150, 2)
    drawn, counts = anchors.draw_anchors(views, unlabelled, count, DELTA_VAR, seeded(seed))
    order = unlabelled[torch.randperm(len(unlabelled), generator=seeded(seed))]
    expected = slow.covering(*(view.numpy() for view in views), order.tolist(), count, DELTA_VAR, anchors.UNCOVERED)
    assert len(drawn) == len(counts) == count
    assert drawn[counts].tolist() == expected


def test_either_view_covers():
    f = torch.zeros(2, 40)
    f[0, 20:] = 5  # f sees two objects, g sees one
    g = torch.zeros(2, 40)
    for views in ((f, g), (g, f)):
        _, counts = anchors.draw_anchors(views, torch.arange(40), 5, DELTA_VAR, seeded(0))
        assert counts.sum() == 1
    _, counts = anchors.draw_anchors((f, f), torch.arange(40), 5, DELTA_VAR, seeded(0))
    assert counts.sum() == 2


@pytest.mark.parametrize(("rest", "expected"), [(0.04, 1), (0.07, 2)])
def test_drawing_stops_when_five_percent_are_left(rest, expected):
    f = torch.zeros(2, 1000)
    f[0, : int(rest * 1000)] = 5
    seed = next(s for s in range(99) if torch.randperm(1000, generator=seeded(s))[0] >= 100)
    _, counts = anchors.draw_anchors((f, f), torch.arange(1000), 5, DELTA_VAR, seeded(seed))
    assert counts.sum() == expected


def test_many_unlabelled_voxels_are_covered_by_a_sample_of_them():
    tissues = torch.arange(12.0).repeat_interleave(1000)
    f = torch.stack([tissues * 4, 0.1 * torch.randn(12_000, generator=seeded(0))])
    assert f.shape[1] > anchors.CANDIDATES
    drawn, counts = anchors.draw_anchors((f, f), torch.arange(12_000), 20, DELTA_VAR, seeded(1))
    assert counts.sum() == 12
    assert sorted(tissues[drawn[counts]].tolist()) == list(range(12))


def test_sampled_anchors_are_all_the_voxels_near_the_mean():
    labels = torch.tensor([4] * 20 + [0] * 9 + [2] * 25)
    e = torch.randn(4, len(labels), generator=seeded(0)) * 0.5
    objects = losses.find_objects(labels)
    means = losses.object_means(e, objects)
    seen = [
        set(column.tolist())
        for column in torch.stack(
            [anchors.sample_object_anchors(e, means, objects, DELTA_VAR, seeded(seed)) for seed in range(300)]
        ).t()
    ]
    e64 = e.double().numpy()
    for found, voxels, mean in zip(
        seen, slow.objects_of(labels), slow.means_of(e64, slow.objects_of(labels)), strict=True
    ):
        near = {int(i) for i in voxels if slow.distance(e64[:, i], mean) <= DELTA_VAR}
        assert 0 < len(near) < len(voxels)
        assert found == near


def test_the_nearest_voxel_stands_in_where_none_is_near():
    e = torch.zeros(2, 20)
    e[0, :9], e[0, 9], e[0, 10:] = -5, 1.5, 5
    objects = losses.find_objects(torch.ones(20, dtype=torch.int64))
    for seed in range(5):
        found = anchors.sample_object_anchors(e, losses.object_means(e, objects), objects, DELTA_VAR, seeded(seed))
        assert found.tolist() == [9]


def test_no_object_no_anchor():
    e, objects = torch.zeros(2, 20), losses.find_objects(torch.zeros(20, dtype=torch.int64))
    means = losses.object_means(e, objects)
    assert anchors.sample_object_anchors(e, means, objects, DELTA_VAR, seeded(0)).tolist() == []
