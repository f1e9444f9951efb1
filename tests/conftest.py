"""What holds for every test."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

# A test that imports openvino itself reports nothing either, see hwprof/devices/openvino.py.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests measure out of what hwprof knows of this machine's sessions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
