# What a job may take: from the estimate of its segmentation where there is one. Profiles ask for retries, which get more.
import json
import math
import os

# Two Snakemakes stand around every job of a cluster.
SNAKEMAKE_MB = 300
# Beside its workers, a job has a process that hands out blocks.
COORDINATOR_MB = 400
# What an estimate may be wrong by; it was made on other blocks, perhaps on another processor.
MEMORY_MARGIN, TIME_MARGIN = 1.25, 3
# A job that is not done by then hands over to its next attempt, so more need not be asked for.
LEAST_MINUTES, MOST_MINUTES = 30, 720


def estimate_of(stage, wildcards):
    """What stage `estimate` says of a stage, as soon as it has: it runs beside the first blocks.

    It must not be an input: Snakemake does not look whether a job's parameters changed while one of its `ancient`
    inputs is about to be made again, and an ordinary one would predict again when clustering changes.
    """
    path = f"{SEGMENTATION}/estimate.json".format(segmentation=wildcards.segmentation)
    if not os.path.exists(path):
        return None
    with open(path) as file:
        stages = json.load(file)["result"]["stages"]
    return next((found for found in stages if found["stage"] == stage), None)


def memory_of(stage, otherwise):
    """Memory in MB for a block in each thread."""

    def mem_mb(wildcards, threads, attempt):
        estimate = estimate_of(stage, wildcards)
        if estimate is None:
            return otherwise * attempt
        needed = estimate["memory_mb"] * threads + COORDINATOR_MB
        return 100 * math.ceil((needed * MEMORY_MARGIN + SNAKEMAKE_MB) / 100) * attempt

    return mem_mb


def minutes_of(stage, otherwise):
    """Minutes for the blocks of a shard."""

    def runtime(wildcards, threads, attempt):
        estimate = estimate_of(stage, wildcards)
        if estimate is None:
            return otherwise
        needed = estimate["work_s"] / estimate["jobs"] / threads / 60 * TIME_MARGIN
        return min(MOST_MINUTES, max(LEAST_MINUTES, math.ceil(needed)) * attempt)

    return runtime


def more_each_time(amount):
    """An amount that grows with the attempts."""
    return lambda wildcards, attempt: amount * attempt


def gpu_where_it_streams(wildcards):
    """Where nothing is stored, the network is applied in this stage."""
    return int(streams(wildcards))
