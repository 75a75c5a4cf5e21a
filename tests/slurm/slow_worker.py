"""What a Dask worker loads first, for blocks of a length that a test chooses."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent / "slowly/spoco-blocks"))
