from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles import adjusted_rand_index
from pydantic import TypeAdapter, ValidationError

from bench.phantoms import make
from bench.shapes import KINDS, shapes
from spoco_blocks.clustering import Context, Modes, find_fragments, segment
from spoco_blocks.errors import SettingsError


@pytest.fixture(scope="module", params=[("easy", 0.98), ("hard", 0.97)], ids=["easy", "hard"])
def crowded(request):
    variant, least = request.param
    return make((48, 48, 48), 12, channels=16, variant=variant, seed=0), least


def test_crowded_objects_are_told_apart(crowded):
    phantom, least = crowded
    labels = segment(Modes(), phantom.embeddings, phantom.foreground)
    assert adjusted_rand_index(phantom.truth, labels, phantom.foreground) > least
    assert abs(int(labels.max()) - phantom.objects) <= 1


def test_a_context_made_of_the_array_itself_changes_nothing(crowded):
    phantom, _ = crowded
    method = Modes()
    sample = method.gradient_sample(phantom.embeddings, phantom.foreground)
    threshold = method.gradient_threshold(sample)
    coreless = method.coreless_threshold(sample, threshold)
    assert threshold < coreless < sample.max()
    modes, counts = method.seek(phantom.embeddings, phantom.foreground, threshold, seed=3)
    assert len(modes) == len(counts)
    expected = method(phantom.embeddings, phantom.foreground, Context(seed=3))
    for context in (Context(threshold, coreless, modes), Context(threshold, seed=3), Context(modes=modes)):
        np.testing.assert_array_equal(method(phantom.embeddings, phantom.foreground, context), expected)


def test_clean_embeddings_give_the_truth():
    truth = np.zeros((6, 12, 12), np.uint32)
    truth[:, 1:6, 1:6], truth[:, 6:11, 1:6], truth[:, 1:11, 6:11] = 1, 2, 3
    embeddings = (np.eye(4)[truth] * 4).transpose(3, 0, 1, 2).astype(np.float16)
    method = replace(Modes(), min_mode_voxels=5)
    labels = segment(method, embeddings, truth > 0, small_voxels=0)
    assert adjusted_rand_index(truth, labels) == 1.0


def test_without_modes_every_core_component_is_a_fragment(crowded):
    phantom, _ = crowded
    none = Context(modes=np.empty((0, 16), np.float32))
    labels = segment(Modes(), phantom.embeddings, phantom.foreground, none)
    assert adjusted_rand_index(phantom.truth, labels, phantom.foreground) > 0.85


@pytest.mark.parametrize("wrong", [{"bandwidth": 0}, {"gradient_quantile": 1.5}, {"growth_rounds": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Modes(**wrong)


def test_settings_are_read_strictly_by_the_configuration():
    adapter = TypeAdapter(Modes)
    assert adapter.validate_python({"kind": "modes", "bandwidth": 0.8}) == Modes(bandwidth=0.8)
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "modes", "bandwith": 0.8})
    with pytest.raises(ValidationError, match="more than 0"):
        adapter.validate_python({"bandwidth": -1})
    assert "mean-shift" in adapter.json_schema()["properties"]["bandwidth"]["description"]


def best_overlaps(truth, labels):
    """The best IoU of each object with any segment."""
    joint = np.zeros((int(truth.max()) + 1, int(labels.max()) + 1))
    np.add.at(joint, (truth.ravel(), labels.ravel()), 1)
    union = joint.sum(0) + joint.sum(1)[:, None] - joint
    present = joint[1:].sum(1) > 0
    return (joint[1:, 1:] / union[1:, 1:]).max(1)[present]


@pytest.mark.parametrize(("channels", "distance"), [(16, 4.0), (8, 2.0)], ids=["apart", "close"])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"mixed"}))
def test_every_object_that_is_hard_to_keep_is_found(kind, channels, distance):
    phantom = shapes(kind, channels, seed=1, distance=distance)
    labels = segment(Modes(), phantom.embeddings, phantom.foreground)
    assert best_overlaps(phantom.truth, labels).min() > 0.5
    assert abs(int(labels.max()) - phantom.objects) <= 0.05 * phantom.objects


def test_thin_objects_between_thick_ones_are_mostly_found():
    """Their voxels change quickly throughout: by the threshold of the thick ones, none of them is core."""
    phantom = shapes("mixed", seed=1)
    method = Modes()
    labels, coreless = method.find(phantom.embeddings, phantom.foreground)
    assert len(coreless) == labels.max() + 1
    assert coreless.sum() >= 10
    thick = phantom.truth[16::31, 16::31, 16::31]
    assert not coreless[np.unique(labels[16::31, 16::31, 16::31][thick > 0])].all()
    overlaps = best_overlaps(phantom.truth, segment(method, phantom.embeddings, phantom.foreground))
    without = replace(method, blend_voxels=method.growth_rounds)
    before = best_overlaps(phantom.truth, segment(without, phantom.embeddings, phantom.foreground))
    assert (overlaps > 0.5).mean() > 0.75
    assert (overlaps > 0.5).sum() > (before > 0.5).sum()


def test_channels_may_come_last_in_memory(crowded):
    phantom, _ = crowded
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(phantom.embeddings, 0, -1)), -1, 0)
    np.testing.assert_array_equal(Modes()(last, phantom.foreground), Modes()(phantom.embeddings, phantom.foreground))


def test_int8_is_clustered_in_its_own_unit(crowded):
    phantom, least = crowded
    unit = np.abs(phantom.embeddings).max() / 127
    steps = np.round(phantom.embeddings.astype(np.float32) / unit).astype(np.int8)
    labels = segment(
        Modes(bandwidth=1 / unit, merge_radius=1 / unit),
        steps,
        phantom.foreground,
        merge_distance=1 / unit,
        small_distance=3 / unit,
    )
    assert adjusted_rand_index(phantom.truth, labels, phantom.foreground) > least - 0.01


@pytest.mark.parametrize("kind", ["thin", "branching"])
def test_borders_of_thin_objects_are_not_straightened(kind, monkeypatch):
    phantom = shapes(kind, seed=1)

    def wrong():
        labels = segment(Modes(), phantom.embeddings, phantom.foreground)
        pairs, counts = np.unique(np.stack([phantom.truth, labels], -1)[phantom.foreground], axis=0, return_counts=True)
        return phantom.foreground.sum() - sum(counts[pairs[:, 0] == o].max() for o in np.unique(pairs[:, 0]))

    as_it_is = wrong()
    monkeypatch.setattr(find_fragments, "_evenness", lambda step: find_fragments.EVENNESS)
    assert as_it_is < wrong()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(5, 6, 8), (4, 5, 7), (1, 6, 10)])
@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 2), (1, 1, 1)])
def test_a_lattice_has_every_second_voxel(dtype, shape, step):
    embeddings = np.random.default_rng(0).standard_normal((3, *shape)).astype(dtype)
    z, y, x = step
    for given in (embeddings, np.asfortranarray(embeddings)):
        found = find_fragments._thinned(given, step)
        np.testing.assert_array_equal(found, embeddings[:, ::z, ::y, ::x])
        assert found.dtype == dtype
