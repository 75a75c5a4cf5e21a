"""Names, explanations and numbers with their units, in plain English."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spoco_blocks.stages.report.content import ReportContent

TIMES = " \N{MULTIPLICATION SIGN} "
AT_MOST = "\N{LESS-THAN OR EQUAL TO}"


@dataclass(frozen=True)
class ScoreText:
    """How one score is named and explained; `share` tells whether it lies between 0 and 1."""

    key: str
    name: str
    better: str
    text: str
    unit: str = ""
    share: bool = True


# Results of stages that say what clustering and stitching went by.
DECIDED = {
    "kind": "Clustering",
    "foreground_threshold": "Probability above which a voxel is foreground",
    "gradient_threshold": "Change of the embedding below which a voxel is the core of an object",
    "coreless_threshold": "The same far from every core, for objects that are thin throughout",
    "bandwidth": "Bandwidth of modes",
    "merge_radius": "Distance under which modes are one",
    "modes": "Modes found",
    "merge_distance": "Distance under which touching fragments are one object",
    "min_overlap": "Part that objects of two blocks share where they are one",
    "distinct_distance": "Distance above which they never are, not even through others",
}


SCORES = (
    ScoreText(
        "ap50",
        "AP50",
        "higher",
        "Objects found, as a share of all that were found, missed or invented. Found means that a segment and the "
        "object share more than half of their joint volume (intersection over union, IoU, above 0.5).",
    ),
    ScoreText("ap75", "AP75", "higher", "The same with an IoU above 0.75: asks for closer outlines."),
    ScoreText("map", "mAP", "higher", "Mean of the same over ten limits of the IoU, from 0.5 to 0.95."),
    ScoreText("f1_50", "F1", "higher", "Balance of finding all objects and inventing none, at an IoU above 0.5."),
    ScoreText("pq", "PQ", "higher", "Panoptic quality: F1 times the mean IoU of the objects found."),
    ScoreText(
        "sbd",
        "SBD",
        "higher",
        "Symmetric best Dice: mean overlap of each object with its best segment, and of each segment with its best "
        "object; the smaller of the two.",
    ),
    ScoreText(
        "dic", "DiC", "lower", "Difference in count: number of segments against number of objects.", "objects", False
    ),
    ScoreText(
        "voi_split",
        "VOI split",
        "lower",
        "How much objects are cut into pieces. 0 is none; 1 is every object in two equal halves.",
        "bits",
        False,
    ),
    ScoreText(
        "voi_merge",
        "VOI merge",
        "lower",
        "How much objects are joined. 0 is none; 1 is every two equal objects made one.",
        "bits",
        False,
    ),
    ScoreText(
        "are",
        "ARE",
        "lower",
        "Adapted Rand error: how often two voxels of the objects are wrongly put together or apart.",
    ),
    ScoreText("cremi", "CREMI", "lower", "Geometric mean of VOI (split + merge) and ARE.", "", False),
)

CURVES = {
    "loss": ("Total loss", "What training makes smaller: the weighted sum of the terms"),
    "pull": ("Pull", "Voxels of one object towards each other"),
    "push": ("Push", "Different objects away from each other"),
    "unlabelled_push": ("Unlabelled push", "Unlabelled voxels away from annotated objects"),
    "dice": ("Instance Dice", "Soft mask of each object against its annotation"),
    "consistency": ("Consistency", "Agreement of two views of unlabelled voxels"),
    "regulariser": ("Regulariser", "Keeps embeddings short"),
    "foreground": ("Foreground", "Objects against known background"),
    "affinity": ("Affinities", "Which voxels belong together, around annotated objects"),
    "validation_mean_iou": ("Validation: overlap", "Mean IoU of annotated objects that training never saw"),
    "validation_recall": ("Validation: recall", "Annotated objects found with an IoU above 0.5"),
    "validation_over_segmentation": ("Validation: pieces", "Segments inside an annotated object; 1 is right"),
    "validation_ap50": ("Validation: AP50", "Objects found, as a share of all found, missed or invented"),
    "validation_sbd": ("Validation: SBD", "Overlap of objects and segments, both ways"),
    "validation_foreground_fraction": ("Validation: foreground", "Part of the voxels taken for foreground"),
    "training_mean_iou": ("Overlap", "Mean IoU of annotated objects, the ones it was trained on: too few to spare any"),
    "training_recall": ("Recall", "Annotated objects found with an IoU above 0.5, the ones it was trained on"),
    "training_over_segmentation": ("Pieces", "Segments inside an annotated object; 1 is right"),
    "training_ap50": ("AP50", "Objects found, as a share of all found, missed or invented, where it was trained"),
    "training_sbd": ("SBD", "Overlap of objects and segments, both ways, where it was trained"),
    "training_foreground_fraction": ("Foreground", "Part of the voxels taken for foreground"),
    "gradient_norm": ("Gradient", "Length of the gradient before it is clipped"),
    "learning_rate": ("Learning rate", "Step size of the optimiser"),
}

NOT_SHOWN = ("gradient_norm_", "iterations_per_second", "waiting", "lost")
"""Beginnings of columns that are for those who look into the table."""

TERMS = ("pull", "push", "unlabelled_push", "dice", "consistency", "regulariser", "foreground", "affinity")
"""Columns that are terms of the loss, weighted: their sum is the loss."""

STAGES = {
    "labels": "Index the volume",
    "train": "Train the network",
    "plan": "Cut into blocks",
    "embed": "Predict embeddings",
    "calibrate": "Calibrate clustering",
    "cluster": "Cluster blocks",
    "stitch": "Stitch fragments",
    "relabel": "Write segments",
    "pyramid": "Build the pyramid",
    "recut": "Cluster across seams",
    "raw_pyramid": "Copy the raw data",
    "mesh": "Mesh the objects",
    "skeleton": "Find centre lines",
    "evaluate": "Score",
}


def number(value: float, digits: int = 3) -> str:
    """Three significant digits, with commas and without exponents where a reader expects none."""
    if not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    if decimals > 7:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, decimals)
    text = f"{rounded:,.{max(0, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def lengths(*nm: float) -> str:
    """Give several lengths in the one unit that suits the largest."""
    limit, unit = next(((limit, unit) for limit, unit in ((1e6, "mm"), (1e3, "µm")) if max(nm) >= limit), (1.0, "nm"))
    return TIMES.join(number(v / limit) for v in nm) + f" {unit}"


def duration(seconds: float) -> str:
    """Give a time as people say it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    whole = round(seconds / 60)
    return f"{whole // 60:,} h {whole % 60} min"


def size_unit(content: ReportContent, typical: float) -> tuple[float, str]:
    """Give how large one voxel is, in the unit that suits a typical size; 1 voxel where the voxel size is not known."""
    if content.voxel_size_nm is None:
        return 1.0, "pixels" if content.flat else "voxels"
    z, y, x = content.voxel_size_nm
    power = 2 if content.flat else 3
    factor = y * x if content.flat else z * y * x
    small = typical * factor < 1e-3 * 1000**power
    superscript = "²" if content.flat else "³"
    return (factor, f"nm{superscript}") if small else (factor / 1000**power, f"µm{superscript}")


def whole(content: ReportContent) -> str:
    """Say what "everything" is."""
    if content.independent_images:
        return "all images"
    return "the whole image" if content.flat else "the whole volume"


def counted(n: int, one: str, many: str = "") -> str:
    """Put a number before its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def extent(content: ReportContent) -> str:
    """Say how large the volume is."""
    z, y, x = content.shape
    size = content.voxel_size_nm
    if content.independent_images:
        return f"{counted(z, 'image')} of {y:,}{TIMES}{x:,} pixels"
    if content.flat:
        return f"{y:,}{TIMES}{x:,} pixels" + (f" ({lengths(size[1] * y, size[2] * x)})" if size else "")
    voxels = f"{z:,}{TIMES}{y:,}{TIMES}{x:,} voxels"
    return voxels + (f" ({lengths(size[0] * z, size[1] * y, size[2] * x)})" if size else "")


def summary(content: ReportContent) -> str:
    """Say in one or two sentences what was done and what came out."""
    found = counted(len(content.objects), "object") if len(content.objects) else "No objects"
    text = f"{found} found in {extent(content)}."
    if not content.scores:
        return text
    true = counted(int(content.scores.get("n_truth", 0)), "true object")
    where = "in the scored region" if content.scored else f"in {whole(content)}"
    return f"{text} Scored against {true} {where}."
