rule report:
    input:
        f"{SEGMENTATION}/pyramid.json",
        f"{SEGMENTATION}/evaluate.json",
        f"{SEGMENTATION}/scores.json",
        f"{SEGMENTATION}/estimate.json",
        f"{SEGMENTATION}/recut.json",
        raw_pyramid,
    output:
        f"{SEGMENTATION}/report.html",
    log:
        "logs/{segmentation}/report.log",
    wildcard_constraints:
        segmentation="|".join(CONFIGURED.segmentations),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        results=results_folder,
        job=stage_job("report"),
    shell:
        "spoco-blocks report {params.job:q} --results {params.results} 2>> {log}"
