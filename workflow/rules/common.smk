# The configuration, validated before anything runs, and the functions that rules take their parameters from.
import os

from spoco_blocks.errors import SettingsError
from spoco_blocks.settings import annotation_jobs, expansion, jobs, parse_settings
from spoco_blocks.settings.annotation_curve import curve_runs, curve_settings
from spoco_blocks.settings.fingerprint import fingerprint

RESULTS = config.pop("results", "results")

try:
    CONFIGURED = parse_settings(config)
except SettingsError as error:
    raise WorkflowError(str(error)) from None

CHECKED = jobs.canonical(jobs.check_job(CONFIGURED))

# With what the annotation curve and rounds of pseudo-labels need; the rules do not tell it from the user's.
SETTINGS = expansion.expand(curve_settings(CONFIGURED))

EXECUTOR = SETTINGS.execution.executor
SCHEDULER = SETTINGS.execution.scheduler or ""
# Stages that mostly read, look up and write: their kernels release the interpreter's lock, processes gain nothing.
LIGHT_EXECUTOR = "serial" if EXECUTOR == "serial" else "threads"
SHARDS = SETTINGS.execution.shards
VOLUME = f"{RESULTS}/volumes/{{volume}}"
MODEL = f"{RESULTS}/models/{{model}}"
SEGMENTATION = f"{RESULTS}/segmentations/{{segmentation}}"
CURVE = f"{RESULTS}/annotation_curve"


wildcard_constraints:
    volume="[A-Za-z0-9_-]+",
    model="[A-Za-z0-9_-]+",
    segmentation="[A-Za-z0-9_-]+",
    shard="[0-9]+",


def results_folder(wildcards):
    return RESULTS


def labels_job(wildcards):
    return jobs.canonical(jobs.labels_job(SETTINGS, wildcards.volume))


def train_job(wildcards):
    return jobs.canonical(jobs.train_job(SETTINGS, wildcards.model))


def agree_job(wildcards):
    return jobs.canonical(jobs.agree_job(SETTINGS, wildcards.model, wildcards.volume))


def gpus_of(wildcards):
    return SETTINGS.models[wildcards.model].training.gpus


def training_program(wildcards):
    """One process, or one per GPU."""
    gpus = gpus_of(wildcards)
    together = f"torchrun --standalone --nproc-per-node {gpus} -m spoco_blocks.cli"
    return together if gpus > 1 else "spoco-blocks"


def stage_job(stage):
    """The sections that decide a stage's result: Snakemake re-runs it when one of their keys changes."""
    return lambda wildcards: jobs.canonical(
        jobs.segmentation_job(SETTINGS, stage, wildcards.segmentation)
    )


def volume_of(segmentation):
    return SETTINGS.segmentations[segmentation].volume


def checkpoint_of(wildcards):
    """What must exist before a segmentation can be planned: a given checkpoint, or a trained model."""
    model = SETTINGS.segmentations[wildcards.segmentation].model
    return SETTINGS.models[model].checkpoint or f"{RESULTS}/models/{model}/train.json"


def shards_of(stage):
    return [f"{SEGMENTATION}/{stage}/shard-{shard}.json" for shard in range(SHARDS)]


def shapes():
    """Manifests of all meshes and skeletons that are asked for."""
    return [
        f"{RESULTS}/segmentations/{name}/{stage}.json"
        for name, section in CONFIGURED.segmentations.items()
        for stage, wanted in (("mesh", section.meshes), ("skeleton", section.skeletons))
        if wanted is not None
    ]


def raw_pyramid(wildcards):
    """What viewers open beside the segmentation, where it is asked for."""
    wanted = SETTINGS.segmentations[wildcards.segmentation].raw_pyramid
    return [f"{SEGMENTATION}/raw_pyramid.json"] if wanted else []


def streams(wildcards):
    return SETTINGS.segmentations[wildcards.segmentation].embeddings == "stream"


def predicted(wildcards):
    """What clustering needs first: embeddings on disk, or no more than the plan where they are streamed."""
    return f"{SEGMENTATION}/plan.json" if streams(wildcards) else shards_of("embed")


def is_exact(wildcards):
    return SETTINGS.segmentations[wildcards.segmentation].stitching.exact


def calibrating_executor(wildcards):
    """Where nothing is stored the network is applied in this stage, and for exact stitching all blocks are clustered."""
    much = streams(wildcards) or is_exact(wildcards)
    return EXECUTOR if much else LIGHT_EXECUTOR


def calibrating_scheduler(wildcards):
    return SCHEDULER if is_exact(wildcards) else ""


def example_data(wildcards=None):
    """Example data to bring here first, when the configuration names it."""
    named = any(
        volume.raw.uri.startswith("data/lightsheet_nuclei.zarr")
        for volume in SETTINGS.volumes.values()
    )
    return ["data/lightsheet_nuclei.fetched"] if named else []


def is_here():
    """Whether there is something to check: example data are brought later."""
    return all(os.path.exists(mark) for mark in example_data())


def labels_content(wildcards):
    """Changes when labels or masks were edited in place; example data never are, and may not be here yet."""
    labels = SETTINGS.volumes[wildcards.volume].labels
    if labels is None or example_data():
        return "fixed"
    masks = [mask.uri if mask else None for mask in (labels.background, labels.ignore)]
    return fingerprint(labels.uri, *masks, *(source.uri for source in labels.also))


def mask_content(wildcards):
    """Changes when the mask was edited in place."""
    mask = SETTINGS.volumes[volume_of(wildcards.segmentation)].mask
    return fingerprint(mask.uri) if mask else "none"


def truth_content(wildcards):
    """Changes when the truth was edited in place."""
    truth = SETTINGS.volumes[volume_of(wildcards.segmentation)].truth
    if truth is None or example_data():
        return "fixed"
    return fingerprint(truth.uri, truth.ignore.uri if truth.ignore else None)


def annotated_volumes(wildcards):
    return [
        f"{RESULTS}/volumes/{volume}/labels.json"
        for volume in SETTINGS.models[wildcards.model].volumes
    ]


def segmented_volumes(wildcards):
    """Both segmentations of a training volume, all shards."""
    names = expansion.teacher_segmentations(wildcards.model, wildcards.volume).values()
    return [
        shard.format(segmentation=name)
        for name in names
        for shard in shards_of("relabel")
    ]


def pseudo_labels(wildcards):
    """What a model's teacher made of its volumes; nothing for a model that learns from the labels alone."""
    teacher = expansion.teacher_of(SETTINGS, wildcards.model)
    return [
        f"{RESULTS}/models/{teacher}/pseudo/{volume}/agree.json"
        for volume in SETTINGS.models[wildcards.model].volumes
        if teacher
    ]


def of_the_curve(derive):
    """Derive something of the annotation curve, which not every configuration allows."""
    try:
        return derive(CONFIGURED)
    except SettingsError as error:
        raise WorkflowError(str(error)) from None


def annotation_baseline_job(wildcards):
    return jobs.canonical(of_the_curve(annotation_jobs.annotation_baseline_job))


def annotation_curve_job(wildcards):
    return jobs.canonical(of_the_curve(annotation_jobs.annotation_curve_job))


def annotation_content(wildcards):
    """Changes when labels or truth of the annotation curve were edited in place."""
    job = of_the_curve(annotation_jobs.annotation_baseline_job)
    return (
        "fixed"
        if example_data()
        else fingerprint(
            *(volume.labels.uri for volume in job.training),
            *(source.uri for volume in job.training for source in volume.labels.also),
            job.truth.uri,
            job.truth.ignore.uri if job.truth.ignore else None,
        )
    )


def curve_labels(wildcards):
    job = of_the_curve(annotation_jobs.annotation_baseline_job)
    names = {volume.volume for volume in (*job.training, job.volume)}
    return [f"{RESULTS}/volumes/{volume}/labels.json" for volume in sorted(names)]


def curve_scores(wildcards):
    """Scores of all trainings of the curve, and how many objects each was given."""
    runs = of_the_curve(curve_runs)
    volumes = dict.fromkeys(volume for run in runs for volume in run.volumes)
    return [
        *(f"{RESULTS}/segmentations/{run.segmentation}/scores.json" for run in runs),
        *(f"{RESULTS}/volumes/{volume}/labels.json" for volume in volumes),
    ]
