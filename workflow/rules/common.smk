# The configuration, validated before anything runs, and the functions that rules take their parameters from.
from spoco_blocks.errors import SettingsError
from spoco_blocks.settings import jobs, parse_settings
from spoco_blocks.settings.fingerprint import fingerprint

RESULTS = config.pop("results", "results")

try:
    SETTINGS = parse_settings(config)
except SettingsError as error:
    raise WorkflowError(str(error)) from None

EXECUTOR = SETTINGS.execution.executor
# Stages that mostly read, look up and write: their kernels release the interpreter's lock, processes gain nothing.
LIGHT_EXECUTOR = "serial" if EXECUTOR == "serial" else "threads"
SHARDS = SETTINGS.execution.shards
VOLUME = f"{RESULTS}/volumes/{{volume}}"
MODEL = f"{RESULTS}/models/{{model}}"
SEGMENTATION = f"{RESULTS}/segmentations/{{segmentation}}"


wildcard_constraints:
    volume="[A-Za-z0-9_-]+",
    model="[A-Za-z0-9_-]+",
    segmentation="[A-Za-z0-9_-]+",
    shard="[0-9]+",


def results_folder(wildcards):
    return RESULTS


def check_job(wildcards):
    return jobs.canonical(jobs.check_job(SETTINGS))


def labels_job(wildcards):
    return jobs.canonical(jobs.labels_job(SETTINGS, wildcards.volume))


def train_job(wildcards):
    return jobs.canonical(jobs.train_job(SETTINGS, wildcards.model))


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


def example_data(wildcards=None):
    """Example data to bring here first, when the configuration names it."""
    named = any(
        volume.raw.uri.startswith("data/lightsheet_nuclei.zarr")
        for volume in SETTINGS.volumes.values()
    )
    return ["data/lightsheet_nuclei.fetched"] if named else []


def labels_content(wildcards):
    """Changes when labels or masks were edited in place; example data never are, and may not be here yet."""
    labels = SETTINGS.volumes[wildcards.volume].labels
    if labels is None or example_data():
        return "fixed"
    masks = [mask.uri if mask else None for mask in (labels.background, labels.ignore)]
    return fingerprint(labels.uri, *masks)


def truth_content(wildcards):
    """Changes when the truth was edited in place."""
    truth = SETTINGS.volumes[volume_of(wildcards.segmentation)].truth
    return "fixed" if truth is None or example_data() else fingerprint(truth.uri)


def annotated_volumes(wildcards):
    return [
        f"{RESULTS}/volumes/{volume}/labels.json"
        for volume in SETTINGS.models[wildcards.model].volumes
    ]
