"""Each term of the loss against a slow obvious twin, and its gradient against finite differences."""

from __future__ import annotations

import math

import loss_oracles as slow
import numpy as np
import pytest
import torch

from spoco_blocks.learn import losses, pairwise
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE
from spoco_blocks.settings.loss import LossSettings

WIDTH = losses.softness(LossSettings())


class Patch:
    """Voxels with embeddings and labels, in tensors and in arrays."""

    def __init__(self, labels, spread=0.7, seed=0):
        self.labels = torch.tensor(labels)
        generator = torch.Generator().manual_seed(seed)
        self.e = torch.randn(4, len(labels), generator=generator, dtype=torch.float64) * spread
        self.objects = losses.find_objects(self.labels)
        self.voxels = slow.objects_of(self.labels)
        self.means = torch.tensor(np.array(slow.means_of(self.e.numpy(), self.voxels)))
        self.ignored, self.unlabelled = self.labels == IGNORE, self.labels == 0


OBJECTS = [5] * 20 + [9] * 30 + [2] * 16
REST = [0] * 40 + [BACKGROUND] * 10 + [IGNORE] * 4 + [7] * 3
PATCHES = {
    "three objects": OBJECTS + REST,
    "ignored voxels in objects": [5] * 9 + [IGNORE] * 5 + [5] * 9 + [IGNORE] * 2 + [9] * 16 + REST,
    "one object": [3] * 20 + REST,
    "no unlabelled voxel": OBJECTS + [BACKGROUND] * 10,
    "no background": OBJECTS + [0] * 30,
    "nothing but objects": OBJECTS,
}


@pytest.fixture(params=[None, 150], ids=["one chunk", "many chunks"])
def chunk(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(pairwise, "CHUNK_CPU", request.param)


@pytest.fixture(params=PATCHES)
def patch(request, chunk) -> Patch:
    return Patch(PATCHES[request.param])


def terms(patch: Patch) -> dict:
    """Each term as a function of the embeddings, and what its twin says."""
    e, means, objects = patch.e.numpy(), patch.means.numpy(), patch.objects
    unlabelled, ignored = torch.nonzero(patch.unlabelled)[:, 0], patch.ignored.numpy()
    anchors, counts = torch.tensor([1, 3, 8, 17]), torch.tensor([True, True, False, True])
    other = patch.e + 0.2 * torch.cos(patch.e * 9)  # what g might give
    counted = anchors[counts].tolist()

    def mu(x):
        return losses.object_means(x, objects)

    return {
        "pull": (lambda x: losses.pull(x, mu(x), objects, 0.5), slow.pull(e, patch.voxels, 0.5)),
        "push": (lambda x: losses.push(mu(x), 2.0), slow.push(means, 2.0)),
        "regulariser": (lambda x: losses.regulariser(mu(x)), slow.regulariser(means)),
        "unlabelled_push": (
            lambda x: losses.unlabelled_push(mu(x), x, patch.unlabelled, 2.0),
            slow.unlabelled_push(means, e, unlabelled, 2.0),
        ),
        "dice": (
            lambda x: losses.instance_dice(mu(x), x, objects, patch.ignored, WIDTH),
            slow.instance_dice(means, e, patch.voxels, ignored, WIDTH),
        ),
        "consistency": (
            lambda x: losses.consistency((x, other.to(x)), anchors, counts, WIDTH, patch.ignored),
            slow.consistency(e, other.numpy(), counted, WIDTH, ignored),
        ),
    }


TERMS = ["pull", "push", "regulariser", "unlabelled_push", "dice", "consistency"]


@pytest.mark.parametrize("name", TERMS)
def test_value_is_that_of_the_twin(patch, name):
    fast, expected = terms(patch)[name]
    found = fast(patch.e)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    single = fast(patch.e.float())
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_that_of_finite_differences(patch, name):
    fast, _ = terms(patch)[name]
    slowly = pairwise.CHUNK_CPU > 1000  # every entry once; a random projection where only the chunks differ
    assert torch.autograd.gradcheck(fast, (patch.e.clone().requires_grad_(),), atol=1e-6, fast_mode=not slowly)


def test_objects_are_found_and_slivers_left_out():
    patch = Patch(PATCHES["three objects"])
    assert patch.objects.counts.tolist() == [16, 20, 30]
    torch.testing.assert_close(losses.object_means(patch.e, patch.objects), patch.means)


@pytest.mark.usefixtures("chunk")
def test_push_of_chosen_pairs():
    means = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    near = torch.rand(9, 9, generator=torch.Generator().manual_seed(2)) < 0.4
    assert float(losses.push(means, 2.0, near)) == pytest.approx(slow.push(means.numpy(), 2.0, near.tolist()))
    assert torch.autograd.gradcheck(lambda x: losses.push(x, 2.0, near), (means.requires_grad_(),), atol=1e-6)
    assert float(losses.push(means, 2.0, torch.zeros(9, 9, dtype=torch.bool)).detach()) == 0


def test_push_of_equal_means_is_full_and_finite():
    same = torch.full((3, 4), 0.3, requires_grad=True)
    value = losses.push(same, 2.0)
    value.backward()
    assert float(value.detach()) == pytest.approx(16, rel=1e-3)
    assert torch.isfinite(same.grad).all()
    assert same.grad.abs().max() < 1e-3


def test_unlabelled_voxels_at_the_mean_are_pushed_by_no_more_than_the_margin_says():
    # 2 (delta_dist - d) is the most that the loss can rise per distance, wherever rounding puts the voxel
    mean = torch.full((1, 8), 1.7)
    e = (mean + 1e-5 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))).t().contiguous()
    e.requires_grad_()
    losses.unlabelled_push(mean, e, torch.ones(200, dtype=torch.bool), 2.0).backward()
    assert (200 * e.grad.norm(dim=0)).max() <= 4.0


def test_no_object_no_loss():
    empty = losses.find_objects(torch.zeros(20, dtype=torch.int64))
    e = torch.randn(4, 20, requires_grad=True)
    means = losses.object_means(e, empty)
    assert len(empty) == 0
    assert means.shape == (0, 4)
    total = losses.push(means, 2.0) + losses.unlabelled_push(means, e, torch.ones(20, dtype=torch.bool), 2.0)
    total.backward()
    assert float(total.detach()) == 0
    assert not e.grad.any()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_soft_mask_has_its_threshold_at_delta_var(threshold):
    loss = LossSettings(delta_var=0.7, mask_threshold=threshold)
    assert math.exp(-(0.7**2) / losses.softness(loss)) == pytest.approx(threshold)


def test_equal_views_agree():
    patch = Patch(PATCHES["three objects"])
    anchors = torch.tensor([70, 80, 101])
    value = losses.consistency((patch.e, patch.e), anchors, anchors > 0, WIDTH, patch.ignored)
    assert float(value) == pytest.approx(0, abs=1e-6)


def test_g_gets_no_gradient():
    patch = Patch(PATCHES["three objects"])
    f, g = patch.e.clone().requires_grad_(), (patch.e + 0.1).requires_grad_()
    anchors = torch.tensor([70, 80])
    losses.consistency((f, g), anchors, anchors > 0, WIDTH, patch.ignored).backward()
    assert f.grad.abs().max() > 0
    assert g.grad is None


@pytest.mark.parametrize("name", PATCHES)
def test_foreground(name):
    labels = torch.tensor(PATCHES[name])
    logits = torch.randn(len(labels), dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 3
    expected, found = slow.foreground(logits.tolist(), labels.tolist()), losses.foreground(logits, labels)
    if BACKGROUND not in PATCHES[name]:
        assert found is None
        assert expected is None
        return
    assert float(found) == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: losses.foreground(x, labels), (logits.requires_grad_(),))


def test_foreground_of_background_alone():
    logits, labels = torch.tensor([0.5, -1.0]), torch.full((2,), BACKGROUND)
    assert float(losses.foreground(logits, labels)) == pytest.approx(slow.foreground([0.5, -1.0], [BACKGROUND] * 2))
