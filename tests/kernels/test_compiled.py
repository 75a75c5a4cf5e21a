"""Compiled kernels are kept by version, where the user may write and nobody else."""

from __future__ import annotations

import numba
import pytest

from spoco_blocks.kernels import compiled


@pytest.fixture(autouse=True)
def nothing_changes(monkeypatch, tmp_path):
    """Leave numba as it is, and the user's own caches alone."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)


def test_kernels_are_kept_in_the_users_cache(tmp_path):
    assert compiled.keep_compiled() == tmp_path / "home/spoco-blocks" / compiled.versions()
    assert str(compiled.keep_compiled()) == numba.config.CACHE_DIR


def test_a_folder_that_was_asked_for_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert compiled.keep_compiled() == tmp_path / "mine" / compiled.versions()


def test_without_a_home_a_temporary_folder_serves(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = compiled.keep_compiled()
    assert found is not None
    assert found.parent == tmp_path / "temporary"


def test_no_code_is_loaded_from_where_others_may_write(tmp_path):
    first = compiled.keep_compiled()
    assert first is not None
    first.chmod(0o777)
    found = compiled.keep_compiled()
    assert found is not None
    assert found.parent == tmp_path / "temporary"


def test_a_kernel_that_changes_changes_the_folder(tmp_path, monkeypatch):
    """A kernel holds the code of those of other files that it calls, which numba does not look at."""
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    (tmp_path / "distance.py").write_text("a")
    before = compiled.versions()
    assert compiled.versions() == before
    (tmp_path / "distance.py").write_text("b")
    assert compiled.versions() != before
