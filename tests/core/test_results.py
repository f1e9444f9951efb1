"""What a notebook shows of a result."""

from __future__ import annotations

from hwprof.results import SearchResult


def test_a_search_without_a_front_is_shown_all_the_same() -> None:
    """As one is whose target no network meets."""
    empty = SearchResult(
        space="mobile-mini",
        reduced=False,
        strategy="random",
        seed=0,
        device="cpu",
        front=(),
        finalists=(),
        trials=(),
        confirmed=False,
        ledger={},
    )
    assert "<table" in empty._repr_html_()
