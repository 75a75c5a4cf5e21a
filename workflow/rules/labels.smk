# Everything waits for the check, but not for when it was done.
rule check:
    input:
        example_data,
    output:
        f"{RESULTS}/check.json",
    log:
        "logs/check.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        results=results_folder,
        job=check_job,
    shell:
        "spoco-blocks check {params.job:q} --results {params.results} 2>> {log}"


rule labels:
    input:
        ancient(f"{RESULTS}/check.json"),
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
