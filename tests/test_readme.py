"""What the README says can be done, can be done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from phantoms import balls

from spoco_blocks import cli
from spoco_blocks.grid import Box
from spoco_blocks.volumes import create_ome_zarr

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    # Of every language: where one ends, none begins.
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, of, text in found if of == language]


COMMANDS = [line.strip() for block in blocks("") for line in block.splitlines() if line.strip()]


def test_make_targets_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert set(named) == {"demo", "test"} <= set(targets)


def test_commands_in_the_text_exist(capsys):
    named = set(re.findall(r"`spoco-blocks ([a-z]+)", README))
    assert named == {"plan", "status", "view"}
    for command in named:
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        assert end.value.code == 0


def test_files_and_folders_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.fixture
def own_volume(tmp_path, monkeypatch):
    """The volume and the configuration of the section "Your own volume"."""
    monkeypatch.chdir(tmp_path)
    raw, labels = balls()
    empty = np.zeros(raw.shape, np.uint8)
    empty[:3, :3] = 1
    for uri, array, is_label in (
        ("tissue.zarr", raw, False),
        ("tissue.zarr/labels/annotated", np.where(labels < 12, labels, 0), True),
        ("tissue.zarr/labels/empty", empty, True),
    ):
        (level,) = create_ome_zarr(
            uri, shape=raw.shape, dtype=array.dtype, chunk_shape=(20, 24, 32), shard_shape=(40, 48, 64),
            voxel_size_nm=(500, 500, 500), levels=1, factors=(), is_label=is_label, name=uri.split("/")[-1],
        )  # fmt: skip
        level.write(Box.of_shape(raw.shape), array)
    (text,) = blocks("yaml")
    Path("my.yaml").write_text(text)
    return tmp_path


def test_own_volume(own_volume, snakemake, capsys):
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "spoco-blocks":
            assert cli.main(arguments) == 0
            assert "is fine" in capsys.readouterr().out
        elif program == "snakemake" and "--dry-run" in arguments:
            result = snakemake(own_volume / "my.yaml", *arguments[arguments.index("my.yaml") + 1 :])
            assert "rule train:" in result.stdout


def test_a_trained_model_is_used_by_its_file():
    (text,) = re.findall(r"`(models: .*?)`", README, re.DOTALL)
    (text_yaml,) = blocks("yaml")
    tree = yaml.safe_load(text_yaml) | yaml.safe_load(text)
    from spoco_blocks.settings import parse_settings

    assert parse_settings(tree).models["cells"].checkpoint.endswith("checkpoint.pt")
