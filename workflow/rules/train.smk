def annotated_volumes(wildcards):
    return [f"{RESULTS}/volumes/{volume}/labels.json" for volume in SETTINGS.models[wildcards.model].volumes]


rule train:
    input:
        annotated_volumes,
    output:
        f"{MODEL}/train.json",
    params:
        job=train_job,
    log:
        "logs/{model}/train.log",
    threads: 8
    resources:
        mem_mb=8000,
        runtime=720,
    shell:
        "spoco-blocks train {params.job:q} --results {RESULTS} --workers {threads} 2>> {log}"
