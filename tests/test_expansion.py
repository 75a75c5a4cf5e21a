"""Rounds of pseudo-labels become ordinary models and segmentations."""

from __future__ import annotations

import copy

import pytest
from test_settings import TREE

from spoco_blocks.settings import Settings, jobs, parse_settings
from spoco_blocks.settings.expansion import expand, teacher_of, teacher_segmentations


def with_rounds(rounds: int, **pseudo_labels: object) -> Settings:
    tree = copy.deepcopy(TREE)
    tree["volumes"]["w"] = copy.deepcopy(tree["volumes"]["v"])
    tree["models"]["m"] = {"volumes": ["v", "w"], "pseudo_labels": {"rounds": rounds, **pseudo_labels}}
    tree["models"]["a-"] = {"volumes": ["v"], "pseudo_labels": {"rounds": min(rounds, 1)}}
    return expand(parse_settings(tree))


def test_without_rounds_nothing_changes():
    settings = parse_settings(TREE)
    assert expand(settings) == settings
    assert teacher_of(settings, "m") is None


def test_every_round_has_a_model_and_two_segmentations_of_each_volume():
    settings = with_rounds(2, segmentation={"foreground_threshold": 0.7})
    assert set(settings.models) == {"m", "m--round0", "m--round1", "a-", "a---round0"}
    made = {name: (s.volume, s.model, s.weights) for name, s in settings.segmentations.items() if "m--" in name}
    assert made == {
        f"m--round{number}--{volume}--{weights}": (volume, f"m--round{number}", weights)
        for number in (0, 1)
        for volume in ("v", "w")
        for weights in ("f", "g")
    }
    assert settings.segmentations["m--round0--v--f"].foreground_threshold == 0.7
    assert settings.segmentations["s"].foreground_threshold is None


@pytest.mark.parametrize(
    ("model", "teacher"),
    [("m", "m--round1"), ("m--round1", "m--round0"), ("m--round0", None), ("a-", "a---round0"), ("a---round0", None)],
)
def test_a_model_learns_from_the_round_before(model, teacher):
    settings = with_rounds(2)
    assert teacher_of(settings, model) == teacher
    teaching = jobs.train_job(settings, model).teaching
    assert (teaching and teaching.teacher) == teacher


def test_only_teachers_are_kept_to_the_training_part():
    settings = with_rounds(1)
    assert not jobs.segmentation_job(settings, "plan", "s").training_part
    for weights, name in teacher_segmentations("m--round0", "v").items():
        job = jobs.segmentation_job(settings, "plan", name)
        assert (job.training_part, job.weights, job.model) == (True, weights, "m--round0")


def changed_jobs(before: Settings, after: Settings) -> set[str]:
    def all_jobs(settings: Settings) -> dict[str, str]:
        found = {f"train {m}": jobs.train_job(settings, m) for m in settings.models}
        for name in settings.segmentations:
            found |= {f"{stage} {name}": jobs.segmentation_job(settings, stage, name) for stage in ("plan", "cluster")}
        for model in settings.models:
            if "--" in model:
                found[f"agree {model}"] = jobs.agree_job(settings, model, "v")
        return {name: jobs.canonical(job) for name, job in found.items()}

    old, new = all_jobs(before), all_jobs(after)
    return {name for name in new if new[name] != old[name]}


def test_a_key_belongs_to_its_stage_only():
    before = with_rounds(1)
    assert changed_jobs(before, with_rounds(1, agreement=0.9)) == {"agree m--round0"}
    assert changed_jobs(before, with_rounds(1, shell=False)) == {"train m"}
    assert changed_jobs(before, with_rounds(1, segmentation={"foreground_threshold": 0.5})) == {
        f"cluster m--round0--{volume}--{weights}" for volume in "vw" for weights in "fg"
    }


def test_jobs_survive_json():
    settings = with_rounds(1)
    agree = jobs.agree_job(settings, "m--round0", "w")
    assert jobs.read_job(jobs.AgreeJob, jobs.canonical(agree)) == agree
    train = jobs.train_job(settings, "m")
    assert jobs.read_job(jobs.TrainJob, jobs.canonical(train)) == train
