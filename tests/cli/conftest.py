"""Commands under test are run as a user runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_part_of_a_parallel_test_run() -> Iterator[None]:
    """pytest-benchmark, for one, is another in a process that thinks it is one of several."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("PYTEST_XDIST")]:
            patch.delenv(name)
        yield
