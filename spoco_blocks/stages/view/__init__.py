"""Shows a segmentation in neuroglancer: a link that says what to show, and a server of the files that it names."""

from spoco_blocks.stages.view.scene import Scene, find_scene
from spoco_blocks.stages.view.server import FileServer, serve

__all__ = ["FileServer", "Scene", "find_scene", "serve"]
