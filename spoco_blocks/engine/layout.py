"""Where results lie. One place for every path below the results folder, and for arrays that are elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spoco_blocks.engine.annotation_layout import AnnotationCurveResults

MESHES, SKELETONS = "meshes", "skeletons"


@dataclass(frozen=True)
class VolumeResults:
    """Results of stage `labels` for one volume."""

    root: Path

    @property
    def manifest(self) -> Path:
        """Manifest of `labels`: intensity range, counts, split."""
        return self.root / "labels.json"

    @property
    def objects(self) -> Path:
        """Table of the labelled objects."""
        return self.root / "objects.parquet"

    @property
    def anchors(self) -> Path:
        """Table of a few voxels of each annotated object."""
        return self.root / "anchors.parquet"

    @property
    def ledger(self) -> Path:
        """Folder of the block records."""
        return self.root / "labels"


@dataclass(frozen=True)
class ModelResults:
    """Results of stage `train` for one model."""

    root: Path

    @property
    def manifest(self) -> Path:
        """Manifest of `train`."""
        return self.root / "train.json"

    @property
    def checkpoint(self) -> Path:
        """The trained networks f and g, self-describing."""
        return self.root / "checkpoint.pt"

    @property
    def state(self) -> Path:
        """State of the run, from which training continues."""
        return self.root / "state.pt"

    @property
    def curves(self) -> Path:
        """Learning curves as CSV."""
        return self.root / "curves.csv"

    @property
    def tensorboard(self) -> Path:
        """Learning curves for TensorBoard."""
        return self.root / "tensorboard"

    def pseudo(self, volume: str) -> PseudoResults:
        """Pseudo-labels that this model made of a training volume."""
        return PseudoResults(self.root / "pseudo" / volume)


@dataclass(frozen=True)
class PseudoResults:
    """Pseudo-labels that one model made of one of its training volumes; arrays hold the training part only."""

    root: Path

    @property
    def manifest(self) -> Path:
        """Manifest of `agree`."""
        return self.root / "agree.json"

    @property
    def labels(self) -> Path:
        """Array (z, y, x) uint32: segments that were kept, 1..n."""
        return self.root / "labels.zarr"

    @property
    def background(self) -> Path:
        """Array (z, y, x) uint8: 1 where both networks see background."""
        return self.root / "background.zarr"

    @property
    def segments(self) -> Path:
        """Table of all segments of g: their agreement, and what became of them."""
        return self.root / "segments.parquet"

    @property
    def anchors(self) -> Path:
        """Table of a few voxels of each kept segment, in the frame of the volume."""
        return self.root / "anchors.parquet"

    @property
    def lookup(self) -> Path:
        """Pseudo-label of every segment of g, a NumPy array."""
        return self.root / "lookup.npy"

    def ledger(self, step: str) -> Path:
        """Folder of the block records of one step of `agree`."""
        return self.root / step


@dataclass(frozen=True)
class SegmentationResults:
    """Results of one segmentation.

    Attributes
    ----------
    root : Path
        Its folder.
    arrays : str or None
        Folder or URI that its large arrays lie in; None = the same folder.
    """

    root: Path
    arrays: str | None = None

    @property
    def place(self) -> Path:
        """File that says where the arrays are, for the stages after `plan`; absent where they are in this folder."""
        return self.root / "arrays.txt"

    def with_arrays_below(self, place: str | None) -> SegmentationResults:
        """Give the same with its arrays in a folder or below a URI that it shares; None = in its own folder."""
        return replace(self, arrays=None if place is None else f"{place.rstrip('/')}/{self.root.name}")

    def _array(self, name: str) -> str:
        return f"{self.arrays or self.root}/{name}.zarr"

    def manifest(self, stage: str, shard: int | None = None) -> Path:
        """Manifest of a stage, or of one shard of its work."""
        if shard is None:
            return self.root / f"{stage}.json"
        return self.root / stage / f"shard-{shard}.json"

    def ledger(self, stage: str) -> Path:
        """Folder of a stage's block records."""
        return self.root / stage

    @property
    def embeddings(self) -> str:
        """Array (c, z, y, x) float16: the network's output, without coordinates."""
        return self._array("embeddings")

    @property
    def other_embeddings(self) -> str:
        """The same of the other of f and g; where clustering asks whether both agree."""
        return self._array("other_embeddings")

    @property
    def foreground(self) -> str:
        """Array (z, y, x) uint8: foreground probability, 255 = 1."""
        return self._array("foreground")

    @property
    def affinities(self) -> str:
        """Array (o, z, y, x) uint8: probability of one object for each offset, 255 = 1; where the model predicts it."""
        return self._array("affinities")

    @property
    def fragments(self) -> str:
        """Array (z, y, x) uint32: fragments, numbered from 1 within each block."""
        return self._array("fragments")

    @property
    def seeds(self) -> str:
        """Array (z, y, x) uint32: what fragments grow from, numbered from 1 within each block; for exact stitching."""
        return self._array("seeds")

    @property
    def segments(self) -> str:
        """OME-Zarr label image: the final segmentation."""
        return self._array("segmentation")

    @property
    def raw_pyramid(self) -> str:
        """OME-Zarr image: the raw data with the levels of the segmentation, where asked for."""
        return self._array("raw_pyramid")

    @property
    def meshes(self) -> Path:
        """Folder of the objects' meshes in neuroglancer's precomputed format."""
        return self.root / MESHES

    @property
    def skeletons(self) -> Path:
        """Folder of the objects' skeletons in neuroglancer's precomputed format."""
        return self.root / SKELETONS

    @property
    def modes(self) -> Path:
        """Modes found in each region of the volume, a NumPy archive."""
        return self.root / "modes.npz"

    @property
    def pieces(self) -> Path:
        """Folder of the tables of seeds and what becomes of them, NumPy arrays; for exact stitching."""
        return self.root / "pieces"

    @property
    def lookup(self) -> Path:
        """Final id of every fragment, a NumPy array."""
        return self.root / "lookup.npy"

    @property
    def offsets(self) -> Path:
        """Number of fragments before each block, a NumPy array."""
        return self.root / "offsets.npy"

    @property
    def objects(self) -> Path:
        """Table of the segments."""
        return self.root / "objects.parquet"

    @property
    def curve(self) -> Path:
        """What other thresholds of stitching give, one line each."""
        return self.root / "restitch.csv"

    @property
    def scores(self) -> Path:
        """Scores against the truth."""
        return self.root / "scores.json"

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.root / "report.html"


@dataclass(frozen=True)
class Layout:
    """The results folder."""

    root: Path

    @property
    def locks(self) -> Path:
        """Locks of stages; outside of the folders that a stage may remove."""
        return self.root / "locks"

    def lock(self, stage: str, name: str) -> Path:
        """Lock of a stage."""
        return self.locks / f"{stage}-{name}.lock"

    def attempts(self, stage: str, name: str) -> Path:
        """Log of all attempts at a stage."""
        return self.root / "logs" / f"{stage}-{name}.log"

    def volume(self, name: str) -> VolumeResults:
        """Results of a volume."""
        return VolumeResults(self.root / "volumes" / name)

    def model(self, name: str) -> ModelResults:
        """Results of a model."""
        return ModelResults(self.root / "models" / name)

    @property
    def annotation_curve(self) -> AnnotationCurveResults:
        """Results of the annotation curve."""
        return AnnotationCurveResults(self.root / "annotation_curve")

    def segmentation(self, name: str) -> SegmentationResults:
        """Results of a segmentation."""
        results = SegmentationResults(self.root / "segmentations" / name)
        return replace(results, arrays=results.place.read_text().strip()) if results.place.exists() else results
