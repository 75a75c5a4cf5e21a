# Score against number of annotated objects. The ordinary rules train, predict and score the derived segmentations.
rule annotation_baseline:
    input:
        curve_labels,
    output:
        f"{CURVE}/annotation_baseline.json",
    log:
        "logs/annotation_curve/baseline.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        results=results_folder,
        job=annotation_baseline_job,
        content=annotation_content,
    shell:
        "spoco-blocks annotation_baseline {params.job:q} --results {params.results} --content {params.content} 2>> {log}"


rule annotation_curve:
    input:
        curve_scores,
        baseline=f"{CURVE}/annotation_baseline.json",
    output:
        table=f"{CURVE}/curve.csv",
        page=f"{CURVE}/curve.html",
        manifest=f"{CURVE}/annotation_curve.json",
    log:
        "logs/annotation_curve/curve.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        results=results_folder,
        job=annotation_curve_job,
    shell:
        "spoco-blocks annotation_curve {params.job:q} --results {params.results} 2>> {log}"
