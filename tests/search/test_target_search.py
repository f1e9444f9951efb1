"""A whole search for target latencies: what it says, keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwprof.api import ProxylessOptions
from hwprof.api.courses import read_courses
from hwprof.api.searching import load_search, search
from hwprof.errors import PlanError
from hwprof.reports.sentences import target_sentence
from hwprof.search.proxyless.target import WITHIN
from tests.made import block_table

pytestmark = pytest.mark.usefixtures("one_thread")


class TestSearch:
    OPTIONS = ProxylessOptions(
        warmup_epochs=1, epochs=2, train_batch=12, alpha_lr=0.1, limit_images=60
    )

    def test_says_how_near_it_came_and_keeps_it(self, tmp_path: Path) -> None:
        """The device takes 1.1 ms for whatever it is given: what was predicted does not count."""
        script = json.dumps({"latency": {"base_s": 1.1e-3}})
        out = tmp_path / "out"
        asked: dict[str, Any] = {
            "space": "mobile-mini",
            "latency": block_table(tmp_path / "table.csv"),
            "strategy": "proxyless",
            "target_ms": 1.3,
            "proxyless": self.OPTIONS,
            "measure_on": "null",
            "script": script,
            "out": out,
        }
        result = search(**asked)
        (penalty,) = result.settings["penalties"]
        assert penalty["kind"] == "target"
        (outcome,) = result.targets
        assert outcome.name == "recompute-target-t1.3ms"
        assert outcome.predicted_s == pytest.approx(1.3e-3, rel=WITHIN)
        assert outcome.measured_s == pytest.approx(1.1e-3, rel=0.02)
        assert outcome.verdict == "faster"
        assert load_search(out).targets == result.targets
        assert search(**asked).targets == result.targets
        events = [json.loads(line) for line in (out / "events.jsonl").read_bytes().splitlines()]
        course = [e for e in events if e["event"] == "ChoicesUpdated"]
        assert all(e["multiplier"] is not None for e in course)

    def test_one_that_latency_does_not_limit_comes_with_its_faster_alternative(
        self, tmp_path: Path
    ) -> None:
        """3.3 ms is nearly the slowest network: the expectation never gets there of itself.

        Both are measured and said, whichever of them beats the other.
        """
        out = tmp_path / "out"
        result = search(
            space="mobile-mini",
            latency=block_table(tmp_path / "table.csv"),
            strategy="proxyless",
            target_ms=3.3,
            proxyless=self.OPTIONS,
            measure_on="null",
            script=json.dumps({"latency": {"base_s": 3.2e-3}}),
            out=out,
        )
        (outcome,) = result.targets
        assert not outcome.is_limiting
        assert outcome.predicted_s == pytest.approx(3.3e-3, rel=WITHIN)
        assert outcome.measured_s == pytest.approx(3.2e-3, rel=0.02)
        assert outcome.verdict == "hit"
        faster = outcome.faster
        assert faster is not None
        assert faster.latency_source == "measured"
        assert faster.predicted_s == pytest.approx(outcome.argmax_s)
        assert outcome.argmax_s < 3.3e-3 * (1.0 - WITHIN)
        assert {t.arch for t in result.finalists} == {outcome.arch, faster.arch}
        assert load_search(out).targets == result.targets
        assert "Faster alternative: of itself" in target_sentence(outcome)
        assert outcome.accuracy_pct is not None
        assert f"{outcome.accuracy_pct:.2f} % of the derived network" in target_sentence(outcome)
        names = [course.name for course in read_courses(out, result)]
        assert names == ["recompute-target-t3.3ms", "recompute-target-t3.3ms-faster"]

    def test_out_of_reach_it_is_refused_before_anything_is_trained(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="out of reach: by the latency model networks of"):
            search(
                space="mobile-mini",
                latency=block_table(tmp_path / "table.csv"),
                strategy="proxyless",
                target_ms=0.2,
                proxyless=self.OPTIONS,
                out=tmp_path / "out",
            )
        assert not (tmp_path / "out" / "training").exists()
