# A round of pseudo-labels is a model, two segmentations of each of its volumes, and this; common.smk has their names.
rule agree:
    input:
        f"{VOLUME}/labels.json",
        segmented_volumes,
    output:
        f"{MODEL}/pseudo/{{volume}}/agree.json",
    log:
        "logs/{model}/agree-{volume}.log",
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        executor=LIGHT_EXECUTOR,
        mem_mb=more_each_time(4000),
        runtime=240,
    params:
        results=results_folder,
        job=agree_job,
    shell:
        "spoco-blocks agree {params.job:q} --results {params.results} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {resources.executor} 2>> {log}"
