"""Where results of the annotation curve lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AnnotationCurveResults:
    """Results of `snakemake annotation_curve`."""

    root: Path

    @property
    def baseline(self) -> Path:
        """Manifest of `annotation_baseline`: the classical chain, tuned, and its scores."""
        return self.root / "annotation_baseline.json"

    @property
    def manifest(self) -> Path:
        """Manifest of `annotation_curve`."""
        return self.root / "annotation_curve.json"

    @property
    def table(self) -> Path:
        """One line per training: objects annotated, and all scores."""
        return self.root / "curve.csv"

    @property
    def page(self) -> Path:
        """Score against number of annotated objects, one HTML file."""
        return self.root / "curve.html"
