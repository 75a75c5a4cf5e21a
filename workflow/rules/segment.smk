# Stores travel outside of Snakemake, which deletes declared outputs before a job and when it fails; manifests are what it
# sees. A shard is a set of blocks: Dask runs them inside one job, and a job that starts again continues where it stopped.
rule plan:
    input:
        volume=lambda wildcards: f"{RESULTS}/volumes/{volume_of(wildcards.segmentation)}/labels.json",
        model=checkpoint_of,
    output:
        f"{SEGMENTATION}/plan.json",
    params:
        job=stage_job("plan"),
    log:
        "logs/{segmentation}/plan.log",
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "spoco-blocks plan {params.job:q} --results {RESULTS} 2>> {log}"


rule embed:
    input:
        f"{SEGMENTATION}/plan.json",
    output:
        f"{SEGMENTATION}/embed/shard-{{shard}}.json",
    params:
        job=stage_job("embed"),
    log:
        "logs/{segmentation}/embed-{shard}.log",
    threads: 2
    resources:
        mem_mb=8000,
        runtime=720,
    shell:
        "spoco-blocks embed {params.job:q} --results {RESULTS} --shard {wildcards.shard} --shards {SHARDS}"
        " --workers {threads} --memory-mb {resources.mem_mb} --executor {EXECUTOR} 2>> {log}"


rule calibrate:
    input:
        shards_of("embed"),
    output:
        f"{SEGMENTATION}/calibrate.json",
    params:
        job=stage_job("calibrate"),
    log:
        "logs/{segmentation}/calibrate.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime=240,
    shell:
        "spoco-blocks calibrate {params.job:q} --results {RESULTS} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {EXECUTOR} 2>> {log}"


rule cluster:
    input:
        f"{SEGMENTATION}/calibrate.json",
    output:
        f"{SEGMENTATION}/cluster/shard-{{shard}}.json",
    params:
        job=stage_job("cluster"),
    log:
        "logs/{segmentation}/cluster-{shard}.log",
    threads: 2
    resources:
        mem_mb=8000,
        runtime=720,
    shell:
        "spoco-blocks cluster {params.job:q} --results {RESULTS} --shard {wildcards.shard} --shards {SHARDS}"
        " --workers {threads} --memory-mb {resources.mem_mb} --executor {EXECUTOR} 2>> {log}"


rule stitch:
    input:
        shards_of("cluster"),
    output:
        f"{SEGMENTATION}/stitch.json",
    params:
        job=stage_job("stitch"),
    log:
        "logs/{segmentation}/stitch.log",
    resources:
        mem_mb=8000,
        runtime=240,
    shell:
        "spoco-blocks stitch {params.job:q} --results {RESULTS} 2>> {log}"


rule relabel:
    input:
        f"{SEGMENTATION}/stitch.json",
    output:
        f"{SEGMENTATION}/relabel/shard-{{shard}}.json",
    params:
        job=stage_job("relabel"),
    log:
        "logs/{segmentation}/relabel-{shard}.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime=240,
    shell:
        "spoco-blocks relabel {params.job:q} --results {RESULTS} --shard {wildcards.shard} --shards {SHARDS}"
        " --workers {threads} --memory-mb {resources.mem_mb} --executor {EXECUTOR} 2>> {log}"


rule pyramid:
    input:
        shards_of("relabel"),
    output:
        f"{SEGMENTATION}/pyramid.json",
    params:
        job=stage_job("pyramid"),
    log:
        "logs/{segmentation}/pyramid.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime=240,
    shell:
        "spoco-blocks pyramid {params.job:q} --results {RESULTS} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {EXECUTOR} 2>> {log}"
