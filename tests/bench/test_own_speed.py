"""hwprof's own inner loops under its own guard.

python -m pytest tests/bench/test_own_speed.py --benchmark-json new.json
hwprof compare base.json new.json
"""

from __future__ import annotations

from typing import Any

from tests.bench import own_work


def test_judging_pairs(hwprof_benchmark: Any) -> None:
    assert hwprof_benchmark(own_work.judge, 5, 64) == "equivalent"


def test_estimating_a_level(hwprof_benchmark: Any) -> None:
    assert 1.00e-4 <= hwprof_benchmark(own_work.level, 5, 16, 100) <= 1.01e-4


def test_storing_samples(hwprof_benchmark: Any) -> None:
    assert hwprof_benchmark(own_work.store, 1000) == 1000


def test_writing_a_block(hwprof_benchmark: Any) -> None:
    assert hwprof_benchmark(own_work.write_block) > 1000
