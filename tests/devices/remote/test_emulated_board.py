"""The whole way on an ARM board that qemu plays: agent, blocks, networks, effects, reduction.

Its times mean nothing; that they are marked and refused is part of the test. It runs where the
board was built before (see ``emulated_board.py``), or with HWPROF_BOARD=1, which builds it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from hwprof import api
from hwprof.devices import device_ref, list_devices
from hwprof.devices.remote.board import release_boards
from hwprof.errors import PlanError
from hwprof.measure.engine import measure
from hwprof.measure.records import DeviceOptions, Measurement, plan_for
from hwprof.measure.references import BLOCK

if TYPE_CHECKING:
    from tests.devices.remote.conftest import Loopback, Serve

pytestmark = [pytest.mark.slow, pytest.mark.board]
RUN = {"space": "mobile-mini", "networks": 56, "resolution_px": 8, "seed": 3}
"""Small networks, for an emulator takes its time, and the fewest that tell the space's 52
coefficients apart: with this seed they hold every block in every slot."""
SHORT = plan_for("quick", workers=2, looks=(3,), burst_s=0.002, warmup_s=0.001, timeout_s=300.0)


def load_builder() -> ModuleType:
    path = Path(__file__).with_name("emulated_board.py")
    spec = importlib.util.spec_from_file_location("emulated_board", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Iterator[Loopback]:
    builder = load_builder()
    folder = builder.cache_folder()
    if not builder.is_built(folder):
        if os.environ.get("HWPROF_BOARD") != "1":
            pytest.skip(f"no emulated board in {folder}: set HWPROF_BOARD=1 to build one")
        try:
            builder.build(folder)
        except builder.CannotBuildError as error:
            pytest.skip(f"the emulated board cannot be built: {error}")
    with (
        serve(tmp_path_factory.mktemp("emulated"), builder.interpreter(folder)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", f"{server.client_bin}:{os.environ['PATH']}")
        yield server
        release_boards()


@pytest.mark.parametrize("adapter", ["cpu", "tflite"])
def test_a_block_is_timed_there_and_marked(emulated: Loopback, adapter: str) -> None:
    if not {s.name: s for s in list_devices()}[adapter].available:
        pytest.skip(f"{adapter} is not installed here, so its models cannot be written")
    ref = device_ref(f"{adapter}@{emulated.url}", DeviceOptions())
    (result,) = measure([BLOCK], ref, SHORT)
    assert isinstance(result, Measurement), result
    stable = result.fingerprint.stable
    assert stable["device"] == f"{adapter}@ssh (emulated)"
    assert stable["emulated"] is True
    assert stable["machine"] == "aarch64"
    assert stable["hardware"] == "Cortex-A72"
    assert any(line.startswith("emulated device") for line in result.evidence)


def test_what_is_there_is_told(emulated: Loopback) -> None:
    release_boards()
    state = api.check_device(emulated.url).to_json()
    assert state["emulated"] is True
    assert state["clusters"] == ["0-1: 2 x Cortex-A72"]
    assert set(state["runtimes"]) >= {"numpy", "onnxruntime", "ai-edge-litert"}


def test_a_space_is_profiled_reduced_and_kept_out_of_searches(
    emulated: Loopback, tmp_path: Path
) -> None:
    device = f"tflite@{emulated.url}"
    run = tmp_path / "run"
    asked: Any = RUN
    done = api.profile(**asked, device=device, out=run)
    assert (done.n_failed, done.n_left) == (0, 0)
    again = api.profile(**asked, device=device, out=run)
    assert again.n_done == done.n_done
    found = api.effects(run)
    assert found is not None
    reduced = api.reduce(run, out=tmp_path / "reduced.yaml")
    assert reduced is not None
    assert "(emulated)" in (tmp_path / "reduced.yaml").read_text()
    table = tmp_path / "accuracy.csv"
    table.write_text("arch,accuracy_pct\n")
    with pytest.raises(PlanError, match="--allow-emulated"):
        api.search(space="mobile-mini", latency=run, accuracy=f"table:{table}", max_evals=2)
