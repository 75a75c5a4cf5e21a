rule train:
    input:
        annotated_volumes,
        pseudo_labels,
    output:
        f"{MODEL}/train.json",
    log:
        "logs/{model}/train.log",
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=gpus_of,
        mem_mb=more_each_time(8000),
        runtime=720,
    params:
        results=results_folder,
        job=train_job,
        program=training_program,
    shell:
        "{params.program} train {params.job:q} --results {params.results} --workers {threads} 2> >(tee -a {log} >&2)"
