"""The log of a search: cut back to its checkpoint, and where the disk does not take it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwprof.errors import StoreError
from hwprof.search.events import SearchFinished, SearchStarted
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


def test_a_checkpoint_before_which_nothing_is_logged_knows_where_the_log_ends(
    tmp_path: Path,
) -> None:
    """As of a search that was ended by its budget and, prolonged, finds the space exhausted."""
    end = SearchFinished(reason="evaluations", confirmed=False, n_front=1, ledger={})
    with Journal(tmp_path, {}) as journal:
        journal.record(SearchStarted(request={}), 0.0)
        journal.checkpoint({"told": 1}, {})
        journal.record(end, 1.0)
    with Journal(tmp_path, {}) as journal:
        journal.checkpoint({"told": 2}, {})
    with Journal(tmp_path, {}) as journal:
        assert journal.resumed is not None
        assert journal.resumed.strategy == {"told": 2}
        journal.record(end, 2.0)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["SearchStarted", "SearchFinished"]


@pytest.mark.parametrize("missing", ["request", "strategy", "ledger", "n_events", "events_bytes"])
def test_a_checkpoint_that_lacks_a_part_is_damaged(tmp_path: Path, missing: str) -> None:
    with Journal(tmp_path, {"seed": 0}) as journal:
        journal.checkpoint({}, {})
    path = tmp_path / "checkpoint.json"
    kept = json.loads(path.read_text())
    del kept[missing]
    path.write_text(json.dumps(kept))
    with pytest.raises(StoreError, match=f"is damaged .*lacks '{missing}'"):
        Journal(tmp_path, {"seed": 0}).__enter__()


@pytest.mark.parametrize("line", ["[]", "1", '"event"', "{}", "{"])
def test_a_line_of_the_log_that_is_no_event_is_damaged(tmp_path: Path, line: str) -> None:
    with Journal(tmp_path, {}) as journal:
        journal.record(SearchStarted(request={}), 0.0)
        journal.checkpoint({}, {})
    path = tmp_path / "events.jsonl"
    path.write_text(line.ljust(len(path.read_text()) - 1) + "\n")
    with pytest.raises(StoreError, match=r"events\.jsonl' is damaged"):
        Journal(tmp_path, {}).__enter__()
