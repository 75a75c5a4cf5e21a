# Example data. Volumes are directories that other programs write too, so a small mark stands for a finished download.
rule fetch:
    output:
        "data/{dataset}.fetched",
    log:
        "logs/data/{dataset}.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "spoco-blocks fetch {wildcards.dataset} --into data > {output} 2> {log}"
