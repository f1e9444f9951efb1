"""What tests over worker processes hold themselves to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hwprof.measure.process import living_pids


@pytest.fixture
def no_worker_is_left() -> Iterator[None]:
    yield
    assert living_pids() == ()
