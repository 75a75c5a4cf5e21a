# Stores travel outside of Snakemake, which deletes declared outputs before a job and when it fails; manifests are what it
# sees. A shard is a set of blocks: Dask runs them inside one job, and a job that starts again continues where it stopped.
rule plan:
    input:
        volume=lambda wildcards: f"{RESULTS}/volumes/{volume_of(wildcards.segmentation)}/labels.json",
        model=checkpoint_of,
    output:
        f"{SEGMENTATION}/plan.json",
    log:
        "logs/{segmentation}/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        results=results_folder,
        job=stage_job("plan"),
        content=mask_content,
    shell:
        "spoco-blocks plan {params.job:q} --results {params.results} --content {params.content} 2>> {log}"


# Ends the run where disk or memory cannot hold it; beside the first blocks, for the reason given in resources.smk.
rule estimate:
    input:
        f"{SEGMENTATION}/plan.json",
    output:
        f"{SEGMENTATION}/estimate.json",
    log:
        "logs/{segmentation}/estimate.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        results=results_folder,
        job=stage_job("estimate"),
    shell:
        "spoco-blocks estimate {params.job:q} --results {params.results} --memory-mb {resources.mem_mb} 2>> {log}"


rule embed:
    input:
        f"{SEGMENTATION}/plan.json",
    output:
        f"{SEGMENTATION}/embed/shard-{{shard}}.json",
    log:
        "logs/{segmentation}/embed-{shard}.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=EXECUTOR,
        scheduler=SCHEDULER,
        gpu=1,
        mem_mb=memory_of("embed", otherwise=8000),
        runtime=minutes_of("embed", otherwise=720),
    params:
        results=results_folder,
        job=stage_job("embed"),
        shards=SHARDS,
    shell:
        "spoco-blocks embed {params.job:q} --results {params.results} --shard {wildcards.shard} --shards {params.shards}"
        " --workers {threads} --memory-mb {resources.mem_mb} --executor {resources.executor} --scheduler={resources.scheduler:q} 2> >(tee -a {log} >&2)"


rule calibrate:
    input:
        predicted,
    output:
        f"{SEGMENTATION}/calibrate.json",
    log:
        "logs/{segmentation}/calibrate.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=calibrating_executor,
        scheduler=calibrating_scheduler,
        gpu=gpu_where_it_streams,
        mem_mb=memory_of("calibrate", otherwise=4000),
        runtime=minutes_of("calibrate", otherwise=240),
    params:
        results=results_folder,
        job=stage_job("calibrate"),
    shell:
        "spoco-blocks calibrate {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} --scheduler={resources.scheduler:q} 2>> {log}"


rule cluster:
    input:
        f"{SEGMENTATION}/calibrate.json",
    output:
        f"{SEGMENTATION}/cluster/shard-{{shard}}.json",
    log:
        "logs/{segmentation}/cluster-{shard}.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=EXECUTOR,
        scheduler=SCHEDULER,
        gpu=gpu_where_it_streams,
        mem_mb=memory_of("cluster", otherwise=8000),
        runtime=minutes_of("cluster", otherwise=720),
    params:
        results=results_folder,
        job=stage_job("cluster"),
        shards=SHARDS,
    shell:
        "spoco-blocks cluster {params.job:q} --results {params.results} --shard {wildcards.shard} --shards {params.shards}"
        " --workers {threads} --memory-mb {resources.mem_mb} --executor {resources.executor} --scheduler={resources.scheduler:q} 2>> {log}"


rule stitch:
    input:
        shards_of("cluster"),
    output:
        f"{SEGMENTATION}/stitch.json",
    log:
        "logs/{segmentation}/stitch.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=more_each_time(8000),
        runtime=240,
    params:
        results=results_folder,
        job=stage_job("stitch"),
    shell:
        "spoco-blocks stitch {params.job:q} --results {params.results} 2>> {log}"


rule relabel:
    input:
        f"{SEGMENTATION}/stitch.json",
    output:
        f"{SEGMENTATION}/relabel/shard-{{shard}}.json",
    log:
        "logs/{segmentation}/relabel-{shard}.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=memory_of("relabel", otherwise=4000),
        runtime=minutes_of("relabel", otherwise=240),
    params:
        results=results_folder,
        job=stage_job("relabel"),
        shards=SHARDS,
    shell:
        "spoco-blocks relabel {params.job:q} --results {params.results} --shard {wildcards.shard} --shards {params.shards}"
        " --workers {threads} --memory-mb {resources.mem_mb} --executor {resources.executor} 2>> {log}"


rule pyramid:
    input:
        shards_of("relabel"),
    output:
        f"{SEGMENTATION}/pyramid.json",
    log:
        "logs/{segmentation}/pyramid.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=memory_of("pyramid", otherwise=4000),
        runtime=minutes_of("pyramid", otherwise=240),
    params:
        results=results_folder,
        job=stage_job("pyramid"),
    shell:
        "spoco-blocks pyramid {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} 2>> {log}"


# A few blocks that lie across the seams, clustered again: the report says how well they agree.
rule recut:
    input:
        shards_of("relabel"),
    output:
        f"{SEGMENTATION}/recut.json",
    log:
        "logs/{segmentation}/recut.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=memory_of("recut", otherwise=8000),
        runtime=minutes_of("recut", otherwise=60),
    params:
        results=results_folder,
        job=stage_job("recut"),
    shell:
        "spoco-blocks recut {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} 2>> {log}"


# Only for segmentations that ask for it. Nothing that is found in the volume changes it.
rule raw_pyramid:
    input:
        f"{SEGMENTATION}/plan.json",
    output:
        f"{SEGMENTATION}/raw_pyramid.json",
    log:
        "logs/{segmentation}/raw_pyramid.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=memory_of("raw_pyramid", otherwise=4000),
        runtime=minutes_of("raw_pyramid", otherwise=240),
    params:
        results=results_folder,
        job=stage_job("raw_pyramid"),
    shell:
        "spoco-blocks raw_pyramid {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} 2>> {log}"


# Only for segmentations that ask for it. Finding surfaces holds the interpreter's lock: processes, not threads.
rule mesh:
    input:
        f"{SEGMENTATION}/pyramid.json",
    output:
        f"{SEGMENTATION}/mesh.json",
    log:
        "logs/{segmentation}/mesh.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=EXECUTOR,
        scheduler=SCHEDULER,
        mem_mb=more_each_time(4000),
        runtime=720,
    params:
        results=results_folder,
        job=stage_job("mesh"),
    shell:
        "spoco-blocks mesh {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} --scheduler={resources.scheduler:q} 2>> {log}"


# Only for segmentations that ask for it.
rule skeleton:
    input:
        f"{SEGMENTATION}/pyramid.json",
    output:
        f"{SEGMENTATION}/skeleton.json",
    log:
        "logs/{segmentation}/skeleton.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=EXECUTOR,
        scheduler=SCHEDULER,
        mem_mb=more_each_time(4000),
        runtime=720,
    params:
        results=results_folder,
        job=stage_job("skeleton"),
    shell:
        "spoco-blocks skeleton {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} --scheduler={resources.scheduler:q} 2>> {log}"
