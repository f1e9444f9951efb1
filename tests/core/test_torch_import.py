"""How the threads that torch brings wait for each other."""

from __future__ import annotations

import os

import pytest

from hwprof.torch_import import SPINS, needs_torch


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SPINS, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def test_they_sleep_soon_and_workers_are_not_told() -> None:
    with needs_torch("training"):
        assert os.environ[SPINS] == "1000"
    assert SPINS not in os.environ


@pytest.mark.parametrize("name", [SPINS, "OMP_WAIT_POLICY"])
def test_what_the_user_says_of_it_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    with needs_torch("training"):
        assert (os.environ.get(SPINS), os.environ[name]) == ("7" if name == SPINS else None, "7")
    assert os.environ[name] == "7"
