# Objects, intensities and the split of each volume.
rule labels:
    input:
        example_data,
    output:
        f"{VOLUME}/labels.json",
    log:
        "logs/{volume}/labels.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=more_each_time(4000),
        runtime=60,
    params:
        results=results_folder,
        job=labels_job,
        content=labels_content,
    shell:
        "spoco-blocks labels {params.job:q} --results {params.results} --content {params.content} --workers {threads}"
        " --memory-mb {resources.mem_mb} --executor {resources.executor} 2>> {log}"
