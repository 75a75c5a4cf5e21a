rule evaluate:
    input:
        shards_of("relabel"),
    output:
        manifest=f"{SEGMENTATION}/evaluate.json",
        scores=f"{SEGMENTATION}/scores.json",
    log:
        "logs/{segmentation}/evaluate.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=more_each_time(4000),
        runtime=240,
    params:
        results=results_folder,
        job=stage_job("evaluate"),
        content=truth_content,
    shell:
        "spoco-blocks evaluate {params.job:q} --results {params.results} --content {params.content} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} 2>> {log}"
