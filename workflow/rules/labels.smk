def example_data(wildcards):
    """Bring example data here when the configuration names it."""
    uri = SETTINGS.volumes[wildcards.volume].raw.uri
    return ["data/lightsheet_nuclei.fetched"] if uri.startswith("data/lightsheet_nuclei.zarr") else []


rule labels:
    input:
        example_data,
    output:
        f"{VOLUME}/labels.json",
    params:
        job=labels_job,
    log:
        "logs/{volume}/labels.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "spoco-blocks labels {params.job:q} --results {RESULTS} --workers {threads} --memory-mb {resources.mem_mb}"
        " --executor {EXECUTOR} 2>> {log}"
