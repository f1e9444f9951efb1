"""The benchmark of training steps: a row is there as soon as it is measured."""

from __future__ import annotations

import io
from typing import Any

import pytest


def test_a_row_is_written_before_the_next_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tests.bench import bench_training_step as bench

    written = io.BytesIO()
    before: list[list[str]] = []

    def case(name: str, resolution_px: int, batch: int, asked: Any) -> dict[str, Any]:
        before.append(written.getvalue().decode().splitlines())
        return {"network of": name, "batch": batch}

    monkeypatch.setattr(bench, "case", case)
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr("sys.argv", ["bench_training_step"])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written))
    bench.main()
    rows = [f"| {name} | {batch} |" for name, _, batch in bench.CASES]
    head = ["| network of | batch |", "| --- | ---: |"]
    assert before == [[], *([*head, *rows[:n]] for n in range(1, len(rows)))]
