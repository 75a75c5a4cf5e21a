from __future__ import annotations

import io
import json
import sys
import types

import pytest
from rich.console import Console

from bench.__main__ import main, names
from bench.frame import Claim, Contender, Report, Row, measure, publish


def report(figure):
    rows = [Row("block", "Mvoxel/s", 6.0, 0.01, "peer"), Row("block", "count", 1.0, 0.0, "nobody")]
    return Report(rows, [Claim("faster than the peer", figure, at_least=20)], ["a note"])


@pytest.mark.parametrize(("figure", "code", "word"), [(25.0, 0, "holds"), (19.9, 1, "falls short")])
def test_a_claim_that_falls_short_gives_exit_code_1(tmp_path, figure, code, word):
    out = io.StringIO()
    target = tmp_path / "result.json"
    assert publish("thing", report(figure), quick=True, target=target, console=Console(file=out, width=120)) == code
    assert f"{word}: faster than the peer" in out.getvalue()
    assert "at least 20" in out.getvalue()
    assert "600" in out.getvalue()
    record = json.loads(target.read_text())
    assert record["claims"][0]["holds"] is (code == 0)
    assert record["machine"]["cores"] >= 1
    assert "node" not in record["machine"]
    assert "numpy" in record["versions"]


@pytest.mark.parametrize(("figure", "code"), [(25.0, 0), (1.0, 1)])
def test_the_command_exits_with_the_reports_code(monkeypatch, figure, code):
    fake = types.ModuleType("bench.clustering")
    fake.run = lambda quick: report(figure) if quick else None
    monkeypatch.setitem(sys.modules, "bench.clustering", fake)
    assert main(["clustering", "--quick"]) == code


def test_an_unknown_benchmark_is_refused(capsys):
    assert "clustering" in names()
    assert not {"frame", "phantoms"} & set(names())
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "clustering" in capsys.readouterr().err


def test_bounds_from_both_sides():
    assert Claim("", 1.0, at_least=1.0, at_most=1.0).holds
    assert not Claim("", 1.1, at_most=1.0).holds
    assert not Claim("", float("nan"), at_least=0).holds


def test_contenders_are_interleaved_after_a_warm_up():
    calls = []
    contenders = [Contender(name, lambda name=name: calls.append(name) or name) for name in "ab"]
    measured = measure(contenders, repeats=3)
    assert "".join(calls) == "ab" * 4
    assert measured["a"].result == "a"
    assert len(measured["b"].seconds) == 3
    assert measured["b"].median >= 0
