"""The pytest plugin: a fixture beside pytest-benchmark's own. Imports nothing heavy until used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hwprof.api.pytest_bench import HwprofBenchmark


@pytest.fixture
def hwprof_benchmark(request: pytest.FixtureRequest) -> HwprofBenchmark:
    """Time a callable or a model as hwprof does; results land in pytest-benchmark's JSON.

    ``hwprof_benchmark(function, *args, **kwargs)`` times a function and returns what it returns;
    ``hwprof_benchmark.model(MODEL, device="cpu")`` times a model and returns its measurement.
    """
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail(
            "hwprof_benchmark writes into pytest-benchmark's results, and that plugin is not "
            "there: run pip install 'hwprof[bench]'",
            pytrace=False,
        )
    from hwprof.api.pytest_bench import HwprofBenchmark, ReplayTimer

    timer = ReplayTimer()
    own = request.node.get_closest_marker("benchmark")
    options = dict(own.kwargs) if own is not None else {}
    # The one public way in: a timer of ours, which replays what was measured in workers.
    marker = pytest.mark.benchmark(**{**options, "timer": timer})
    request.node.add_marker(marker, append=False)
    return HwprofBenchmark(request.getfixturevalue("benchmark"), timer)
