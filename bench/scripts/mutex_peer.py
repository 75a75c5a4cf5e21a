"""Mutex watershed of a peer: prints the seconds of one run and leaves its labels. Runs where the peer is."""

import json
import os
import sys
import time

# Before the peers are loaded: one thread each.
os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}

import numpy as np


def peer_of(name, affinities, offsets, attractive, mask):
    """Give the call that is timed: inputs as the peer wants them are made before."""
    strengths = (affinities.astype(np.float32) + 1) / 256
    strengths[attractive:] = (256 - affinities[attractive:].astype(np.float32)) / 256
    if name == "bioimage-cpp":
        from bioimage_cpp.segmentation import mutex_watershed

        within = None if mask.all() else mask
        return lambda: mutex_watershed(strengths, offsets.tolist(), attractive, mask=within)
    import mwatershed

    # Equal strengths in the order of offsets, then voxels, as the others take them; without, its result differs.
    signed = strengths.astype(np.float64)
    signed -= np.arange(signed.size).reshape(signed.shape) / (512.0 * signed.size)
    signed[attractive:] *= -1
    return lambda: mwatershed.agglom(signed, offsets.tolist())


if __name__ == "__main__":
    data = np.load(sys.argv[2])
    run = peer_of(sys.argv[1], data["affinities"], data["offsets"], int(data["attractive"]), data["mask"])
    start = time.perf_counter()
    labels = run()
    seconds = time.perf_counter() - start
    np.save(f"{sys.argv[1]}.npy", labels)
    print(json.dumps({"seconds": seconds}))
