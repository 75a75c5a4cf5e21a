"""Cluster samples with fast_hdbscan: prints processor seconds (median of three runs), writes labels beside them."""

import json
import statistics
import sys
import time

import numpy as np
from fast_hdbscan import HDBSCAN

samples = np.load(sys.argv[1])
seconds = []
for _ in range(4):
    start = time.process_time()
    labels = HDBSCAN(min_cluster_size=20, cluster_selection_epsilon=0.5).fit_predict(samples)
    seconds.append(time.process_time() - start)
np.save(sys.argv[2], labels)
print(json.dumps({"seconds": statistics.median(seconds[1:])}))
