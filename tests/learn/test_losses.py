"""Each term of the loss against a slow obvious twin, and its gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spoco_blocks.learn import losses
from spoco_blocks.learn.losses import BACKGROUND, IGNORE, Objects
from spoco_blocks.learn.objective import Objective, near_pairs
from spoco_blocks.settings.sections import LossSettings


@pytest.fixture
def patch() -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (n, e) and labels (n,) with three objects, unlabelled voxels, background and ignore."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([5] * 20 + [9] * 30 + [2] * 16 + [0] * 40 + [BACKGROUND] * 10 + [IGNORE] * 4 + [7] * 3)
    return torch.randn(len(labels), 4, generator=generator, dtype=torch.float64) * 2, labels


def members(labels: torch.Tensor) -> list[torch.Tensor]:
    return [labels == i for i in labels.unique() if i > 0 and (labels == i).sum() >= losses.MIN_VOXELS]


def slow_means(embeddings, labels):
    return torch.stack([embeddings[mask].mean(0) for mask in members(labels)])


def test_objects_are_found_and_slivers_left_out(patch):
    embeddings, labels = patch
    objects = losses.find_objects(labels)
    assert objects.counts.tolist() == [16, 20, 30]
    torch.testing.assert_close(losses.object_means(embeddings, objects), slow_means(embeddings, labels))


def test_pull(patch):
    embeddings, labels = patch
    objects = losses.find_objects(labels)
    terms = []
    for mask, mean in zip(members(labels), slow_means(embeddings, labels), strict=True):
        apart = [max(0.0, float((e - mean).norm()) - 0.5) ** 2 for e in embeddings[mask]]
        terms.append(np.mean(apart))
    found = losses.pull(embeddings, slow_means(embeddings, labels), objects, 0.5)
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("near", [None, torch.tensor([[True, True, False], [True, True, True], [False, True, True]])])
def test_push(patch, near):
    means = slow_means(*patch) * 0.3
    terms = [
        max(0.0, 4.0 - float((means[k] - means[m]).norm())) ** 2
        for k in range(3)
        for m in range(3)
        if k != m and (near is None or near[k, m])
    ]
    assert float(losses.push(means, 2.0, near)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_push_of_equal_means_and_of_one_object():
    same = torch.zeros(3, 4, requires_grad=True)
    value = losses.push(same, 2.0)
    value.backward()
    assert float(value.detach()) == pytest.approx(16, rel=1e-3)
    assert torch.isfinite(same.grad).all()
    assert float(losses.push(torch.ones(1, 4), 2.0)) == 0
    assert float(losses.push(torch.ones(0, 4), 2.0)) == 0


def test_unlabelled_push_and_regulariser(patch):
    embeddings, labels = patch
    means = slow_means(embeddings, labels)
    unlabelled = torch.nonzero(labels == 0)[:, 0]
    terms = [max(0.0, 2.0 - float((e - mean).norm())) ** 2 for mean in means for e in embeddings[unlabelled]]
    found = losses.unlabelled_push(losses.squared_distances(means, embeddings), unlabelled, 2.0)
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-4)
    assert float(losses.regulariser(means)) == pytest.approx(float(means.norm(dim=1).mean()), rel=1e-5)


def test_soft_mask_has_its_threshold_at_delta_var():
    loss = LossSettings(delta_var=0.7, mask_threshold=0.3)
    assert math.exp(-(0.7**2) / losses.softness(loss)) == pytest.approx(0.3)


def test_instance_dice(patch):
    embeddings, labels = patch
    objects, means = losses.find_objects(labels), slow_means(embeddings, labels)
    ignored, width = labels == IGNORE, losses.softness(LossSettings())
    terms = []
    for mask, mean in zip(members(labels), means, strict=True):
        soft = torch.exp(-(embeddings - mean).pow(2).sum(1) / width)[~ignored]
        truth = mask[~ignored].double()
        terms.append(float(1 - 2 * (soft * truth).sum() / (soft.pow(2).sum() + truth.sum())))
    soft = torch.exp(-losses.squared_distances(means, embeddings) / width)
    assert float(losses.instance_dice(soft, objects, ignored)) == pytest.approx(np.mean(terms), rel=1e-4)


def test_consistency(patch):
    embeddings, labels = patch
    other = embeddings + 0.1
    anchors, ignored = torch.tensor([70, 80, 101]), labels == IGNORE
    terms = []
    for anchor in anchors:
        f = torch.exp(-(embeddings - embeddings[anchor]).pow(2).sum(1) / 0.5)[~ignored]
        g = torch.exp(-(other - other[anchor]).pow(2).sum(1) / 0.5)[~ignored]
        terms.append(float(1 - 2 * (f * g).sum() / (f.pow(2).sum() + g.pow(2).sum())))
    found = losses.consistency(embeddings, other, anchors, 0.5, ignored)
    assert float(found) == pytest.approx(np.mean(terms), abs=1e-6)
    assert float(losses.consistency(embeddings, embeddings, anchors, 0.5, ignored)) == pytest.approx(0, abs=1e-6)


def test_anchors_are_unlabelled_and_apart(patch):
    embeddings, labels = patch
    unlabelled = torch.nonzero(labels == 0)[:, 0]
    anchors = losses.draw_anchors(embeddings, unlabelled, 8, 1.0, torch.Generator().manual_seed(1))
    assert 1 <= len(anchors) <= 8
    assert (labels[anchors] == 0).all()
    apart = torch.cdist(embeddings[anchors], embeddings[anchors]) + 10 * torch.eye(len(anchors))
    assert apart.min() > 1.0


def test_foreground_needs_background():
    labels, logits = torch.tensor([3, 3, 0, BACKGROUND]), torch.tensor([1.0, -2.0, 9.0, 0.5])
    softplus = [math.log1p(math.exp(v)) for v in (-1.0, 2.0, 0.5)]
    expected = 0.5 * (softplus[0] + softplus[1]) / 2 + 0.5 * softplus[2]
    assert float(losses.foreground(logits, labels)) == pytest.approx(expected)
    assert losses.foreground(logits[:3], labels[:3]) is None


def test_gradients(patch):
    embeddings, labels = patch
    objects = losses.find_objects(labels)
    objects = Objects(objects.voxels, objects.owner, objects.counts.double())
    ignored, unlabelled = labels == IGNORE, torch.nonzero(labels == 0)[:, 0]

    def total(e):
        means = losses.object_means(e, objects)
        squared = losses.squared_distances(means, e)
        return (
            losses.pull(e, means, objects, 0.5)
            + losses.push(means, 2.0)
            + losses.unlabelled_push(squared, unlabelled, 2.0)
            + losses.instance_dice(torch.exp(-squared / 0.5), objects, ignored)
            + losses.consistency(e, embeddings + 0.1, unlabelled[:3], 0.5, ignored)
            + losses.regulariser(means)
        )

    assert torch.autograd.gradcheck(total, (embeddings.clone().requires_grad_(),), atol=1e-4)


def objective(**settings) -> Objective:
    return Objective(LossSettings(**settings), (4.0, 4.0, 4.0), None)


@pytest.mark.parametrize("labels", [0, BACKGROUND, IGNORE, 3], ids=["unlabelled", "background", "ignore", "object"])
def test_patches_of_one_kind_give_finite_gradients(labels):
    output = torch.randn(5, 6, 6, 6, requires_grad=True)
    terms = objective()(output, output.detach() + 0.1, torch.full((6, 6, 6), labels), torch.Generator())
    assert ("pull" in terms) == (labels == 3)
    assert ("consistency" in terms) == (labels == 0)
    assert ("foreground" in terms) == (labels == BACKGROUND)
    if terms:
        torch.stack(list(terms.values())).sum().backward()
        assert torch.isfinite(output.grad).all()


def test_weights_scale_their_terms():
    output, labels = torch.randn(5, 6, 6, 6), torch.zeros(6, 6, 6, dtype=torch.int64)
    labels[:3], labels[3] = 1, BACKGROUND
    labels[4, :3] = 2
    one = objective()(output, None, labels, torch.Generator())
    for name, value in one.items():
        double = objective(**{name: 2 * getattr(LossSettings(), name)})(output, None, labels, torch.Generator())
        assert float(double[name]) == pytest.approx(2 * float(value), rel=1e-5)


def test_ignored_voxels_change_nothing():
    output, labels = torch.randn(5, 6, 6, 6), torch.zeros(6, 6, 6, dtype=torch.int64)
    labels[:3], labels[5] = 1, IGNORE
    changed = output.clone()
    changed[:, 5] += 3
    before, after = (objective()(o, None, labels, torch.Generator()) for o in (output, changed))
    for name in before:
        torch.testing.assert_close(before[name], after[name])


def test_coordinates_tell_alike_objects_apart():
    output, labels = torch.zeros(5, 4, 4, 40), torch.zeros(4, 4, 40, dtype=torch.int64)
    labels[..., :4], labels[..., 36:] = 1, 2
    with_position = objective()(output, None, labels, torch.Generator())["push"]
    without = Objective(LossSettings(), None, None)(output, None, labels, torch.Generator())["push"]
    assert float(with_position) == 0
    assert float(without) > 10


def test_near_pairs_by_boxes():
    labels = torch.zeros(1, 8, 40, dtype=torch.int64)
    labels[..., :4], labels[..., 6:10], labels[..., 30:34] = 1, 2, 3
    near = near_pairs(losses.find_objects(labels), labels.shape, (5.0, 5.0, 5.0))
    assert near.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
