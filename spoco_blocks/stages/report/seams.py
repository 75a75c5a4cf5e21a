"""What the report says of the faces between blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spoco_blocks.stages.report.wording import counted


def seam_text(seams: Mapping[str, Any] | None) -> str:
    """Say how often objects end at faces between blocks, and inside; nothing where no object meets such a face."""
    if seams is None or seams["cut_at_seams"] is None:
        return ""
    text = (
        f"Seams: of {counted(seams['sections_at_seams'], 'section')} of objects at the faces between blocks, "
        f"{100 * seams['cut_at_seams']:.1f} % end there"
    )
    if seams["cut_inside"] is None:
        return f"{text}."
    return (
        f"{text}; at planes inside blocks {100 * seams['cut_inside']:.1f} % do. Where both "
        "are alike, blocks do not show."
    )


def recut_text(recut: Mapping[str, Any] | None) -> str:
    """Say how well blocks that lie across the seams agree with the segmentation; nothing where none were clustered."""
    if recut is None or recut.get("recut_ari") is None:
        return ""
    several, agreement = recut["blocks"] > 1, f"{recut['recut_ari']:.4f}"
    agree = "lie across seams agree" if several else "lies across seams agrees"
    exactly = ", every voxel alike" if recut["differing_voxels"] == 0 else ""
    least = f"; the one that agrees least to {recut['least_recut_ari']:.4f}" if several else ""
    return (
        f"Clustered again, {counted(recut['blocks'], 'block')} that {agree} with the segmentation to an adjusted Rand "
        f"index of {agreement}{exactly}{least}. At 1 it does not matter how the volume is cut."
    )


def worst_seams(seams: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Give the rows of the table of worst seams."""
    rows = [] if seams is None else seams["worst"]
    return [
        {**row, **{name: ", ".join(f"{place:,}" for place in row[name]) for name in ("start", "stop")}} for row in rows
    ]
