"""What a voxel of the supervision can be, beside one of an annotated object (above 0)."""

UNLABELLED, BACKGROUND, IGNORE = 0, -1, -2
