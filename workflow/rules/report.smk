rule report:
    input:
        f"{SEGMENTATION}/pyramid.json",
        f"{SEGMENTATION}/evaluate.json",
        f"{SEGMENTATION}/scores.json",
    output:
        f"{SEGMENTATION}/report.html",
    params:
        job=stage_job("report"),
    log:
        "logs/{segmentation}/report.log",
    resources:
        mem_mb=4000,
        runtime=20,
    shell:
        "spoco-blocks report {params.job:q} --results {RESULTS} 2>> {log}"
