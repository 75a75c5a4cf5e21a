"""What is known of pairs of voxels, and the loss on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spoco_blocks.learn.affinities import affinity_loss, known_pairs
from spoco_blocks.learn.label_values import BACKGROUND, IGNORE

OFFSETS = ((1, 0, 0), (0, 0, 1), (0, 3, 0), (0, -1, 2))


def pair_kind(a, b):
    """Say what two labels tell: together, apart or nothing."""
    if IGNORE in (a, b):
        return None
    if a == b and a > 0:
        return "together"
    if a > 0 or b > 0 or a == b == BACKGROUND:
        return "apart"
    return None


def oracle(logits, labels, offsets):
    """Loop over all pairs."""
    terms = []
    for logit, offset in zip(logits, offsets, strict=True):
        found = {"together": [], "apart": []}
        for start in np.ndindex(labels.shape):
            end = tuple(a + b for a, b in zip(start, offset, strict=True))
            if all(0 <= e < n for e, n in zip(end, labels.shape, strict=True)):
                kind = pair_kind(int(labels[start]), int(labels[end]))
                if kind:
                    probability = 1 / (1 + math.exp(-float(logit[start])))
                    found[kind].append(-math.log(probability if kind == "together" else 1 - probability))
        if found["together"] and found["apart"]:
            terms.append((np.mean(found["together"]) + np.mean(found["apart"])) / 2)
    return np.mean(terms)


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    coarse = rng.choice([IGNORE, BACKGROUND, 0, 1, 2, 7], size=(2, 3, 4))
    return torch.from_numpy(np.kron(coarse, np.ones((2, 2, 2), np.int64)))


def test_equals_the_oracle(labels):
    logits = torch.randn(len(OFFSETS), *labels.shape, generator=torch.Generator().manual_seed(0))
    loss = affinity_loss(logits, labels, OFFSETS)
    assert float(loss) == pytest.approx(oracle(logits, labels, OFFSETS), rel=1e-5)


def test_gradient(labels):
    logits = torch.randn(len(OFFSETS), *labels.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: affinity_loss(x, labels, OFFSETS), logits)


def test_half_precision_is_finite(labels):
    logits = (60 * torch.randn(len(OFFSETS), *labels.shape)).to(torch.bfloat16).requires_grad_()
    affinity_loss(logits, labels, OFFSETS).backward()
    assert torch.isfinite(logits.grad).all()


def test_an_object_and_what_is_unlabelled_are_apart():
    labels = torch.tensor([[[1, 1, 0, 0, BACKGROUND, BACKGROUND, IGNORE, 2]]])
    together, apart, _ = known_pairs(labels, (0, 0, 1))
    assert together.flatten().tolist() == [True, False, False, False, False, False, False]
    assert apart.flatten().tolist() == [False, True, False, False, True, False, False]


def test_nothing_known_gives_no_loss():
    logits = torch.zeros(2, 4, 4, 4)
    assert affinity_loss(logits, torch.zeros(4, 4, 4, dtype=torch.int64), OFFSETS[:2]) is None
    assert affinity_loss(logits, torch.ones(4, 4, 4, dtype=torch.int64), OFFSETS[:2]) is None
    assert affinity_loss(logits[:, :1], torch.ones(1, 4, 4, dtype=torch.int64), ((2, 0, 0), (0, 9, 0))) is None
