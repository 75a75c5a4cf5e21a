"""The loss of a patch: which terms it has, what it costs in memory, and that precision and place do not matter."""

from __future__ import annotations

import loss_oracles as slow
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spoco_blocks.learn import losses, pairwise
from spoco_blocks.learn.anchors import draw_anchors
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE
from spoco_blocks.learn.objective import Objective, near_pairs, positioned
from spoco_blocks.settings.loss import LossSettings

SCALE = (4.0, 5.0, 6.0)


def objective(scale=SCALE, radius=None, **settings) -> Objective:
    return Objective(LossSettings(**settings), scale, radius)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def typical() -> torch.Tensor:
    """Labels (6, 6, 6) of two objects with a shell, a third object that touches ignored voxels, and a sliver."""
    labels = torch.zeros(6, 6, 6, dtype=torch.int64)
    labels[:4, :4, :4] = BACKGROUND
    labels[:3, :3, :3], labels[3:, 3:, :3], labels[3:, :3, 3:], labels[0, 0, 5] = 3, 8, 5, 9
    labels[5, :2], labels[2:4, 5, 5] = IGNORE, BACKGROUND
    return labels


def total(terms):
    return torch.stack(list(terms.values())).sum()


@pytest.mark.parametrize("radius", [None, (2.0, 2.0, 2.0)])
def test_terms_are_those_of_the_twins(radius):
    labels, output, output_g = typical(), noise(5, 6, 6, 6), noise(5, 6, 6, 6, seed=1)
    loss = LossSettings(regulariser=0.5, pull=2.0, delta_var=0.8)
    found = Objective(loss, SCALE, radius)(output, output_g, labels, seeded())
    e, g = slow.positioned(output.numpy(), SCALE), slow.positioned(output_g.numpy(), SCALE)
    plain, objects, width = output[:-1].flatten(1).numpy(), slow.objects_of(labels), losses.softness(loss)
    means, flat = slow.means_of(e, objects), labels.flatten()
    ignored, unlabelled = (flat == IGNORE).numpy(), torch.nonzero(flat == 0)[:, 0]
    drawn, counts = draw_anchors((torch.tensor(e), torch.tensor(g)), unlabelled, 12, 0.8, seeded())
    near = None if radius is None else slow.near(labels, radius)
    expected = {
        "pull": 2 * slow.pull(e, objects, 0.8),
        "push": slow.push(means, 2.0, near),
        "regulariser": 0.5 * slow.regulariser(slow.means_of(plain, objects)),
        "dice": slow.instance_dice(means, e, objects, ignored, width),
        "unlabelled_push": slow.unlabelled_push(means, e, unlabelled.tolist(), 2.0),
        "consistency": slow.consistency(e, g, drawn[counts].tolist(), width, ignored),
        "foreground": slow.foreground(output[-1].flatten().tolist(), flat.tolist()),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("anchor", ["mean", "sampled"])
def test_gradient_is_that_of_finite_differences(anchor):
    labels, output_g = typical(), noise(5, 6, 6, 6, seed=1)
    whole = objective(anchor=anchor)
    inputs = (noise(5, 6, 6, 6).mul_(0.5).requires_grad_(),)
    assert torch.autograd.gradcheck(lambda x: total(whole(x, output_g, labels, seeded())), inputs, fast_mode=True)


def test_sampled_anchors_change_dice_alone():
    labels, output = typical(), noise(5, 6, 6, 6)
    mean, sampled = (objective(anchor=a)(output, None, labels, seeded()) for a in ("mean", "sampled"))
    assert {name for name in mean if float(mean[name]) != float(sampled[name])} == {"dice"}


@pytest.mark.parametrize("kind", [0, BACKGROUND, IGNORE, 3], ids=["unlabelled", "background", "ignore", "object"])
@pytest.mark.parametrize("anchor", ["mean", "sampled"])
@pytest.mark.parametrize("constant", [True, False])
def test_patches_of_one_kind_give_finite_gradients(kind, anchor, constant):
    output = torch.zeros(5, 6, 6, 6) if constant else noise(5, 6, 6, 6, dtype=torch.float32)
    output.requires_grad_()
    scale = None if constant else SCALE
    whole = objective(scale, anchor=anchor)
    terms = whole(output, output.detach() + 0.1, torch.full((6, 6, 6), kind), seeded())
    assert ("pull" in terms) == (kind == 3)
    assert ("consistency" in terms) == (kind == 0)
    assert ("foreground" in terms) == (kind == BACKGROUND)
    assert "unlabelled_push" not in terms
    if terms:
        total(terms).backward()
        assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("anchor", ["mean", "sampled"])
def test_what_is_not_a_number_stays_so(anchor):
    output = torch.full((5, 6, 6, 6), torch.nan)
    terms = objective(anchor=anchor)(output, output, typical(), seeded())
    assert all(torch.isnan(terms[name]) for name in ("pull", "dice", "consistency"))


def test_equal_means_give_finite_gradients():
    output = torch.zeros(5, 6, 6, 6, requires_grad=True)
    terms = objective(None)(output, output.detach(), typical(), seeded())
    total(terms).backward()
    assert float(terms["push"].detach()) == pytest.approx(16)
    assert torch.isfinite(output.grad).all()


def test_weights_scale_their_terms_and_zero_leaves_them_out():
    output, output_g = noise(5, 6, 6, 6), noise(5, 6, 6, 6, seed=1)
    one = objective()(output, output_g, typical(), seeded())
    assert len(one) == 7
    for name, value in one.items():
        double = objective(**{name: 2 * getattr(LossSettings(), name)})(output, output_g, typical(), seeded())
        assert float(double[name]) == pytest.approx(2 * float(value), rel=1e-5)
        assert set(objective(**{name: 0})(output, output_g, typical(), seeded())) == set(one) - {name}


def test_ignored_voxels_change_nothing():
    output, output_g, labels = noise(5, 6, 6, 6), noise(5, 6, 6, 6, seed=1), typical()
    changed = [view + 3 * (labels == IGNORE) * noise(5, 6, 6, 6, seed=2) for view in (output, output_g)]
    changed[0].requires_grad_()
    before, after = (objective()(*views, labels, seeded()) for views in ((output, output_g), changed))
    for name in before:
        torch.testing.assert_close(before[name], after[name])
    total(after).backward()
    assert changed[0].grad[:, labels == IGNORE].abs().max() < 1e-9 * changed[0].grad.abs().max()


def test_coordinates_tell_alike_objects_apart():
    output, labels = torch.zeros(5, 4, 4, 40), torch.zeros(4, 4, 40, dtype=torch.int64)
    labels[..., :4], labels[..., 36:] = 1, 2
    assert float(objective()(output, None, labels, seeded())["push"]) == 0
    assert float(objective(None)(output, None, labels, seeded())["push"]) > 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_half_precision_is_worked_out_in_float32(dtype, size):
    output, output_g = (noise(5, 6, 6, 6, seed=s).mul(size).to(dtype) for s in (0, 1))
    output.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = objective()(output, output_g, typical(), seeded())
    single = objective()(output.float(), output_g.float(), typical(), seeded())
    for name, value in half.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, single[name])
    total(half).backward()
    assert output.grad.dtype == dtype
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize(("scale", "offset"), [((0.5, 0.5, 0.5), 0.0), (None, 300.0)], ids=["far apart", "far away"])
def test_large_embeddings_keep_their_digits(scale, offset):
    # float64 of the same numbers is the truth; without centring |e|^2 leaves errors of 1e-2 in squared distances
    output, output_g = (noise(5, 6, 6, 6, seed=s, dtype=torch.float32) * 0.3 + offset for s in (0, 1))
    found, truth = {}, {}
    for dtype, kept in ((torch.float32, found), (torch.float64, truth)):
        leaf = output.to(dtype).requires_grad_()
        terms = objective(scale)(leaf, output_g.to(dtype), typical(), seeded())
        kept.update(terms)
        kept["gradient"] = torch.autograd.grad(total(terms), leaf)[0]
    for name, value in truth.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-5)


def test_coordinates_are_added_around_the_middle():
    output = noise(5, 4, 6, 8) + 7
    found, expected = positioned(output[:-1], SCALE), slow.positioned(output.numpy(), SCALE)
    np.testing.assert_allclose(found, expected - expected.mean(1, keepdims=True), atol=1e-12)
    endless = positioned(output[:-1], (float("inf"), 5.0, 6.0)).reshape(4, 4, 6, 8)
    np.testing.assert_allclose(endless[0], output[0] - output[0].mean(), atol=1e-12)


def crowd(objects: int) -> torch.Tensor:
    """Labels (12, 40, 40) with the same voxels labelled, whatever the number of objects."""
    ids = torch.arange(10 * 1600) // (16_000 // objects) + 1
    labels = torch.zeros(12, 40, 40, dtype=torch.int64)
    labels[:10] = ids.reshape(10, 40, 40)
    labels[11] = BACKGROUND
    return labels


def test_a_thousand_objects():
    labels, output = crowd(1000), noise(4, 12, 40, 40)
    terms = objective()(output, None, labels, seeded())
    e, objects = slow.positioned(output.numpy(), SCALE), slow.objects_of(labels)
    assert len(objects) == 1000
    means, width = np.array(slow.means_of(e, objects)), losses.softness(LossSettings())
    between = np.sqrt(((means[:, None] - means[None]) ** 2).sum(2))[~np.eye(1000, dtype=bool)]
    assert float(terms["push"]) == pytest.approx((np.maximum(0, 4 - between) ** 2).mean())
    dice, push = [], []
    for mean, voxels in zip(means, objects, strict=True):
        squared = ((e - mean[:, None]) ** 2).sum(0)
        soft, mask = np.exp(-squared / width), np.zeros(e.shape[1])
        mask[voxels] = 1
        dice.append(1 - 2 * (soft * mask).sum() / ((soft**2).sum() + mask.sum()))
        push.append(np.maximum(0, 2 - np.sqrt(squared[labels.flatten() == 0])) ** 2)
    assert float(terms["dice"]) == pytest.approx(np.mean(dice))
    assert float(terms["unlabelled_push"]) == pytest.approx(np.mean(push))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        own = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *(t.untyped_storage().nbytes() // t.element_size() for t in own)])
        return out


def memory(objects: int) -> tuple[int, int]:
    """Bytes kept for the backward pass, and elements of the largest tensor made."""
    kept = {}
    output = noise(9, 12, 40, 40, dtype=torch.float32).requires_grad_()

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        terms = objective(radius=(5.0, 5.0, 5.0))(output, output.detach() + 0.1, crowd(objects), seeded())
        total(terms).backward()
    return sum(nbytes for nbytes, _ in kept.values()), largest.elements


def test_memory_does_not_grow_with_voxels_times_objects(monkeypatch):
    monkeypatch.setattr(pairwise, "CHUNK_CPU", 2**18)
    few_kept, few_largest = memory(10)
    many_kept, many_largest = memory(1000)
    assert many_kept - few_kept < 1000 * 8 * 4 * 12  # a few (objects, channels) arrays of float32
    assert few_largest <= 2**18
    assert many_largest <= 1000 * 1000  # one number per pair of objects; per voxel and object it would be 19 million


@pytest.mark.parametrize("seed", range(8))
def test_near_pairs_are_those_of_the_twin(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((8, 14, 30), np.int64)
    for i in range(1, 8):
        z, y, x = (int(rng.integers(0, extent - 4)) for extent in labels.shape)
        labels[z : z + 4, y : y + 4, x : x + 4] = i
    for radius in ((2.0, 3.0, 4.0), (1.0, 6.0, 6.0), (float("inf"), 3.0, 3.0)):
        found = near_pairs(losses.find_objects(torch.tensor(labels)), labels.shape, radius)
        assert found.tolist() == slow.near(labels, radius)


def test_a_radius_of_zero_keeps_overlapping_boxes():
    labels = torch.zeros(1, 8, 40, dtype=torch.int64)
    labels[..., :4], labels[..., 4:8] = 1, 2
    labels[0, :4, 20:30], labels[0, 4:, 25:35], labels[0, 7, 20] = 3, 4, 3
    near = near_pairs(losses.find_objects(labels), labels.shape, (0.0, 0.0, 0.0))
    assert near.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, True],
        [False, False, True, True],
    ]
