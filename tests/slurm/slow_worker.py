"""What a Dask worker loads first, for blocks of a length that a test chooses."""

import os
import runpy

# Dask runs a copy of this file, which does not know where it came from.
runpy.run_path(os.environ["SLOW_PROGRAM"])
