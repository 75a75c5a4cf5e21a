"""`modes`, and what the workflow chooses, against tuned peers on embeddings of networks that the workflow trained.

Training takes minutes per network; networks and embeddings are kept in results/bench/real_embeddings, whatever code
trained them: delete that folder to train anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.cluster import MeanShift
from threadpoolctl import threadpool_limits

from bench.frame import Claim, Report, Row
from bench.workflow import ROOT, missing_files, run_workflow
from spoco_blocks.clustering import Affinities, Context, Hdbscan, Method, Modes, segment
from spoco_blocks.clustering.centres import nearest_centres, objects
from spoco_blocks.clustering.modes import draw
from spoco_blocks.engine.layout import Layout
from spoco_blocks.engine.manifest import Manifest
from spoco_blocks.grid import Box
from spoco_blocks.kernels.contingency import contingency
from spoco_blocks.kernels.scores import Scores, scores
from spoco_blocks.settings import parse_settings
from spoco_blocks.settings.sections import TruthSettings
from spoco_blocks.stages.plan import Plan
from spoco_blocks.stages.sources import chosen_part, id_source, open_source
from spoco_blocks.volumes import read_instances

Labels = NDArray[np.uint32]
FOLDER = ROOT / "results/bench/real_embeddings"
CONFIGURATIONS = {
    "nuclei": "config/config.yaml",
    "neurites": "config/examples/neurites.yaml",
    "cells": "config/examples/cells.yaml",
    "mitochondria": "config/examples/mitochondria.yaml",
}
SAMPLES = 20000
# What is dropped where the configuration drops nothing.
MIN_VOXELS = 50
HDBSCAN_SETTINGS = tuple(product((10, 20, 50, 100), (0.25, 0.5, 1.0)))
MEAN_SHIFT_SETTINGS = tuple(product((0.5, 0.75, 1.0, 1.5, 2.0, 3.0), (5, 20)))


@dataclass(frozen=True, eq=False)
class Case:
    """A segmented volume as clustering sees it, and its truth.

    Attributes
    ----------
    embeddings : ndarray of float32, shape (c, z, y, x)
        With coordinates.
    foreground : ndarray of bool, shape (z, y, x)
        By the threshold of the configuration or of the model.
    context : Context
        Affinities, where the network predicts them, size of small objects, and step.
    modes : Modes
        The method by name, with the distances that the model says.
    chosen : Method
        That of the configuration or of the model.
    min_voxels : int
        Smaller objects are dropped, whoever found them.
    truth : ndarray of uint64, shape of `scored`
        True objects.
    scored : Box
        The part that is scored: where the network has not been trained.
    min_truth_voxels : int
        True objects under this size are not scored.
    """

    embeddings: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    context: Context
    modes: Modes
    chosen: Method
    min_voxels: int
    truth: NDArray[Any]
    scored: Box
    min_truth_voxels: int

    def score(self, labels: Labels) -> Scores:
        """Drop small objects and score the others."""
        kept = objects(labels, connected=False, min_voxels=self.min_voxels)
        table = contingency(self.truth, kept[self.scored.slices])
        return scores(*table, min_voxels=self.min_truth_voxels)


def read_case(tree: Mapping[str, Any], folder: Path) -> Case:
    """Train and predict by the workflow, where that has not been done, and read what it kept.

    Parameters
    ----------
    tree : mapping
        The configuration, of one segmentation.
    folder : Path
        Where it runs.
    """
    settings = parse_settings(tree)
    ((name, segmentation),) = settings.segmentations.items()
    results = Layout(run_workflow(folder, tree, f"results/segmentations/{name}/embed/shard-0.json")).segmentation(name)
    plan = Plan.read(Manifest.read(results.manifest("plan")))
    source = plan.embedded(results, segmentation.foreground_threshold, affinities=True)
    output = source.output.read(Box.of_shape(plan.shape))
    embeddings, foreground = source.understand(output)
    affinities = None
    if output.affinities is not None:
        affinities = Affinities(output.affinities, np.array(plan.offsets, np.int64), plan.neighbours)
    truth = settings.volumes[segmentation.volume].truth
    assert truth is not None, "the configurations of this benchmark have truth"
    volume = open_source(id_source(TruthSettings.model_validate({**truth.model_dump(), "uri": str(ROOT / truth.uri)})))
    scored, _ = chosen_part(truth, volume, independent=False)
    return Case(
        embeddings,
        foreground,
        Context(affinities=affinities, smallest_voxels=plan.smallest_voxels, step=plan.step),
        Modes().suited(plan.object_distance),
        plan.method(segmentation.clustering),
        segmentation.stitching.min_voxels or MIN_VOXELS,
        read_instances(volume, scored),
        scored,
        truth.min_voxels,
    )


def hdbscan_settings(case: Case) -> Iterator[Labels]:
    """Cluster a sample by the hdbscan package, with each of its settings; every voxel takes the nearest mean."""
    for size, epsilon in HDBSCAN_SETTINGS:
        method = Hdbscan(
            max_samples=SAMPLES, min_cluster_size=size, cluster_selection_epsilon=epsilon, min_voxels=case.min_voxels
        )
        yield method(case.embeddings, case.foreground)


def mean_shift_settings(case: Case) -> Iterator[Labels]:
    """Cluster a sample by scikit-learn's mean shift, with each of its settings; every voxel takes the nearest one."""
    sample = draw(case.embeddings, np.flatnonzero(case.foreground), SAMPLES, 0)
    for bandwidth, least in MEAN_SHIFT_SETTINGS:
        try:
            found = MeanShift(bandwidth=bandwidth, bin_seeding=True, min_bin_freq=least).fit(sample)
        except ValueError:
            # No cell of this width holds that many samples.
            continue
        clusters = nearest_centres(case.embeddings, case.foreground, found.cluster_centers_.astype(np.float32))
        yield objects(clusters, connected=True, min_voxels=case.min_voxels)


PEERS: dict[str, Callable[[Case], Iterator[Labels]]] = {
    "hdbscan, best of 12": hdbscan_settings,
    "scikit-learn mean shift, best of 12": mean_shift_settings,
}


def voi(found: Scores) -> float:
    """Give the variation of information over the truth's foreground, in bits."""
    return found.voi_split + found.voi_merge


def compare(report: Report, name: str, case: Case) -> None:
    """Add figures and claims for one volume; each of a peer's scores is that of its best setting for it."""
    chosen = f"as the workflow chooses ({case.chosen.kind})"
    ours = {
        "modes": case.score(segment(case.modes, case.embeddings, case.foreground, case.context)),
        chosen: case.score(segment(case.chosen, case.embeddings, case.foreground, case.context)),
    }
    peers = {}
    for peer, settings in PEERS.items():
        found = [case.score(labels) for labels in settings(case)]
        peers[peer] = max(s.ap50 for s in found), min(voi(s) for s in found)
    for method, score in ours.items():
        subject = f"{name}, {method}"
        for peer, (ap50, bits) in peers.items():
            report.rows += [
                Row(subject, "AP50", score.ap50, ap50, peer),
                Row(subject, "VOI, bits", voi(score), bits, peer),
            ]
        report.rows.append(Row(subject, "segments", score.n_segments, score.n_truth, "truth"))
        best_ap50, best_voi = max(p[0] for p in peers.values()), min(p[1] for p in peers.values())
        report.claims += [
            Claim(f"{subject}: AP50 less the best peer's", score.ap50 - best_ap50, at_least=0),
            Claim(f"{subject}: VOI less the best peer's", voi(score) - best_voi, at_most=0),
        ]


def run(quick: bool) -> Report:
    """Compare on the demo's network, and in full on those of the examples whose data are here."""
    report = Report(
        notes=[
            f"Peers cluster {SAMPLES} foreground voxels with 12 settings; each score is that of the best of them, by "
            "the truth. All have the same foreground, and drop small objects alike. Scored where the network was not "
            "trained."
        ]
    )
    for name, file in CONFIGURATIONS.items():
        if quick and name != "nuclei":
            continue
        tree = yaml.safe_load((ROOT / file).read_text())
        missing = missing_files(tree)
        if missing:
            report.notes.append(f"{name} is left out: {', '.join(missing)} is not here.")
            continue
        case = read_case(tree, FOLDER / name)
        with threadpool_limits(1):
            compare(report, name, case)
    return report
