"""Another repository uses the workflow as a module, as snakedeploy sets it up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from phantoms import ball_configuration, write_configuration

ROOT = Path(__file__).parent.parent.parent
SNAKEFILE = """
configfile: "{config}"


module segmenting:
    snakefile:
        "{snakefile}"
    config:
        config


use rule * from segmenting as segmenting_*


rule mine:
    input:
        "results/segmentations/balls/report.html",
    output:
        "mine.txt",
    shell:
        "cp {{input}} {{output}}"
"""


def test_used_as_a_module(tmp_path, program_environment):
    config = write_configuration(tmp_path, ball_configuration(tmp_path))
    snakefile = tmp_path / "workflow/Snakefile"
    snakefile.parent.mkdir()
    snakefile.write_text(SNAKEFILE.format(config=config, snakefile=ROOT / "workflow/Snakefile"))
    command = ["snakemake", "--cores", "1", "--directory", str(tmp_path), "--snakefile", str(snakefile)]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], env=program_environment | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "rule mine:" in run("--dry-run", "mine")
    run("results/volumes/balls/labels.json")
    assert (tmp_path / "results/volumes/balls/labels.json").exists()
