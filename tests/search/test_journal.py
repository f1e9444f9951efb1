"""The log of a search, where the disk does not take it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprof.errors import StoreError
from hwprof.search.events import SearchStarted
from hwprof.search.journal import Journal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_closed_is_one_line_and_leaves_no_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {}).__enter__()
    assert journal._events is not None
    journal._events.close()
    journal._events = open("/dev/full", "wb")  # noqa: SIM115 - the journal closes it
    journal.record(SearchStarted(request={}), 0.0)
    with pytest.raises(StoreError, match="No space left on device"):
        journal.__exit__(None, None, None)
    with Journal(tmp_path, {}):
        pass
