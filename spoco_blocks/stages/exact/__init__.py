"""Clustering that does not show where the volume is cut: seeds, then pieces of the whole volume, then their voxels."""
