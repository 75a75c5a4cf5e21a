"""Instance segmentation of large 3D volumes from a few annotated objects."""

__version__ = "0.1.0"
