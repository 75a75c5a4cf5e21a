rule evaluate:
    input:
        shards_of("relabel"),
    output:
        manifest=f"{SEGMENTATION}/evaluate.json",
        scores=f"{SEGMENTATION}/scores.json",
    params:
        job=stage_job("evaluate"),
    log:
        "logs/{segmentation}/evaluate.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime=240,
    shell:
        "spoco-blocks evaluate {params.job:q} --results {RESULTS} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {EXECUTOR} 2>> {log}"
