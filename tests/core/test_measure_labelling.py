"""Labels of bursts: which clock is the full one."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.measure import labelling
from hwprof.measure.labelling import Labeller
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.protocols import Disturbance


def burst(probe_ns: int) -> Burst:
    times = np.array([1_000, 1_000], dtype=np.int64)
    return Burst(start_ns=times, duration_ns=times, wait_ns=None, probe_ns=probe_ns)


def labels(probes_ns: list[int]) -> list[bool]:
    """Return which bursts of a campaign with such probes end with a slow clock."""
    labeller = Labeller()
    quiet = Disturbance()
    made = [
        LabelledBurst(
            burst=(b := burst(p)), worker="w0", round_index=0, causes=labeller.causes(b, quiet)
        )
        for p in probes_ns
    ]
    return ["slow_clock" in labeller.relabel(b).causes for b in made]


def test_one_lucky_probe_does_not_make_all_others_slow() -> None:
    assert labels([31_000, *[33_500] * 50]) == [False] * 51


def test_a_clock_that_sinks_is_noticed_and_so_is_one_that_rises() -> None:
    assert labels([33_000] * 20 + [36_000] * 20) == [False] * 20 + [True] * 20
    assert labels([36_000] * 20 + [33_000] * 20) == [True] * 20 + [False] * 20


def test_five_percent_is_the_limit() -> None:
    assert labels([95_000] * 10 + [99_900]) == [False] * 11
    assert labels([95_000] * 10 + [100_100]) == [False] * 10 + [True]


def test_earlier_bursts_count() -> None:
    earlier = [LabelledBurst(burst=burst(33_000), worker="w0", round_index=0)] * 20
    assert "slow_clock" in Labeller(earlier).causes(burst(36_000), Disturbance())


@pytest.mark.parametrize(
    ("stops", "found"), [([4, 4, 7, 7], [False, True, False]), ([None], [False] * 3)]
)
def test_a_group_that_spent_its_quota_labels_the_burst(
    stops: list[int | None], found: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter(stops)
    monkeypatch.setattr(labelling, "quota_stops", lambda: next(told))
    labeller = Labeller()
    for expected in found:
        causes = labeller.causes(burst(33_000), labeller.host_disturbance(None))
        assert ("over_quota" in causes) == expected
