"""What the command line says of blocks that failed."""

from __future__ import annotations

import shlex

import numpy as np
from phantoms import ball_configuration, balls, store

from spoco_blocks import cli
from spoco_blocks.settings import jobs, parse_settings


def test_failed_blocks_come_with_the_command_that_retries_them(tmp_path, capsys):
    tree = ball_configuration(tmp_path)
    raw = balls()[0].astype(np.float32)
    raw[3, 4, 5] = np.nan
    tree["volumes"]["balls"]["raw"]["uri"] = store(tmp_path / "nan.zarr", raw)
    job = jobs.canonical(jobs.labels_job(parse_settings(tree), "balls"))
    command = ["labels", job, "--results", str(tmp_path / "r"), "--executor", "threads", "--retries", "0"]
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "Run the same command again: it retries these blocks only." in said
    assert "run snakemake again" in said
    assert shlex.split(said.splitlines()[-1]) == ["spoco-blocks", *command]


def test_executions_that_contradict_themselves_are_refused(tmp_path, capsys):
    tree = ball_configuration(tmp_path)
    job = jobs.canonical(jobs.labels_job(parse_settings(tree), "balls"))
    assert cli.main(["labels", job, "--results", str(tmp_path / "r"), "--scheduler", "tcp://h:1", "--gpus", "1"]) == 1
    assert "give one of them" in capsys.readouterr().err
