"""Eight bits: what becomes of values, sizes and pieces."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_quantizer")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from hwprof.devices import device_ref
from hwprof.devices.litert.tflite import TfliteAdapter, write_model
from hwprof.devices.litert.tflite_int8 import from_levels, to_levels
from hwprof.devices.remote.artifacts import Artifacts
from hwprof.errors import MissingExtraError
from hwprof.measure.engine import measure
from hwprof.measure.records import DeviceOptions, Loaded, Measurement, Precision, plan_for
from hwprof.space import get_space
from hwprof.testing import PIECES, block, reference_outputs
from hwprof.workload import Workload

PLAN = plan_for("quick")
LARGEST_ERROR: dict[Precision, float] = {"int8": 0.15, "int8-dynamic": 0.03}
"""Root mean square, relative to that of the output. A level is 1/255 of a tensor's range, some
1 to 2 % of a normal tensor's deviation, and errors of operators add; a wrong layout, scale or
zero point makes an error around 1."""
LARGEST_ERROR_OF_MEANS = 0.5
"""Averages over the pixels are small against the range that their summands need."""


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
@pytest.mark.parametrize("name", PIECES)
def test_blocks_stay_close_to_float(name: str, precision: Precision) -> None:
    adapter = TfliteAdapter(DeviceOptions(precision=precision))
    workload = block(name)
    assert adapter.supports(workload).ok
    executable = adapter.compile(workload, PLAN)
    inputs = {"input": np.asarray(executable._inputs["input"], np.float32)}
    (expected,) = reference_outputs(workload, inputs)
    (found,) = executable.outputs()
    wide = np.asarray(expected, np.float64)
    error = np.linalg.norm(np.asarray(found, np.float64) - wide) / np.linalg.norm(wide)
    means = name == "head" and precision == "int8"
    assert error < (LARGEST_ERROR_OF_MEANS if means else LARGEST_ERROR[precision])
    if name != "skip":
        assert error > 1e-4  # or nothing was quantised


@pytest.mark.parametrize(("precision", "kind"), [("int8", np.int8), ("int8-dynamic", np.float32)])
def test_static_takes_levels_and_dynamic_floats(precision: Precision, kind: type) -> None:
    executable = TfliteAdapter(DeviceOptions(precision=precision)).compile(block("mbconv"), PLAN)
    interpreter = executable._interpreter
    assert interpreter.get_input_details()[0]["dtype"] is kind
    assert interpreter.get_output_details()[0]["dtype"] is kind
    assert executable.outputs()[0].dtype == np.float32


def test_h_swish_in_eight_bits_leaves_the_delegate() -> None:
    """What makes static int8 of MobileNetV3's blocks slower than float: two more pieces."""
    adapter = TfliteAdapter(DeviceOptions(precision="int8"))
    support = adapter.supports(block("mbconv"))
    assert support.n_pieces is not None
    assert support.n_pieces > 1
    assert support.outside_ops == ("HARD_SWISH", "HARD_SWISH")
    assert adapter.compile(block("mbconv"), PLAN).check().outside_ops == support.outside_ops


def test_it_is_said_before_measuring_and_stands_beside_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = plan_for("quick", workers=2, burst_s=0.002)
    device = device_ref("tflite", DeviceOptions(precision="int8"))
    (result,) = measure([block("mbconv")], device, plan)
    assert isinstance(result, Measurement)
    assert result.telemetry["provider"] == "XNNPACK, 3 pieces"
    assert result.telemetry["outside_ops"] == ["HARD_SWISH", "HARD_SWISH"]
    assert any("HARD_SWISH (x2)" in line for line in result.evidence)
    said = "HARD_SWISH (x2) run outside of the accelerated part, which is in 3 pieces"
    assert any(said in record.getMessage() for record in caplog.records)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and forgets a peak")
def test_what_the_quantiser_took_is_not_told_as_the_models(tmp_path: Path) -> None:
    """A worker quantises when it is asked whether it takes the workload, before memory counts."""
    options = DeviceOptions(precision="int8")
    network = Workload.network(get_space("mobile-mini").sample(np.random.default_rng(1)))
    (tmp_path / "int8.tflite").write_bytes(write_model(network, options))

    def loaded(workload: Workload, options: DeviceOptions) -> Loaded:
        plan = plan_for("quick", workers=2, burst_s=0.002)
        (result,) = measure([workload], device_ref("tflite", options), plan)
        assert isinstance(result, Measurement)
        return result.loaded

    here = loaded(network, options)
    there = loaded(Workload.from_file(tmp_path / "int8.tflite"), DeviceOptions())
    assert here.warnings == there.warnings == ()
    assert here.peak_memory_bytes == pytest.approx(there.peak_memory_bytes, rel=0.15)


def test_same_seed_same_file_and_another_seed_other_ranges() -> None:
    def written(seed: int) -> str | bytes:
        workload = Workload.block(PIECES["conv"], "conv")
        other = Workload.from_json(workload.to_json() | {"seed": seed})
        return TfliteAdapter(DeviceOptions(precision="int8"))._model(other)

    assert written(0) == written(0)
    assert written(0) != written(1)


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_a_network_is_quantised_without_a_word(
    precision: Precision, capsys: pytest.CaptureFixture[str]
) -> None:
    space = get_space("mobile-mini")
    network = Workload.network(space.sample(np.random.default_rng(1)))
    assert write_model(network, DeviceOptions(precision=precision))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


def test_levels_by_hand() -> None:
    """Scale 0.5 and zero point -3: level = value / 0.5 - 3, within -128 to 127."""
    values = np.array([0.0, 0.5, -1.0, 65.0, 1000.0, -1000.0])
    levels = to_levels(values, 0.5, -3)
    np.testing.assert_array_equal(levels, np.array([-3, -2, -5, 127, 127, -128], np.int8))
    back = from_levels(levels[:4], 0.5, -3)
    np.testing.assert_array_equal(back, np.array([0, 0.5, -1, 65], np.float32))
    assert back.dtype == np.float32


def test_without_the_quantizer_the_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hwprof\[int8\]'"):
        TfliteAdapter(DeviceOptions(precision="int8")).compile(block("conv"), PLAN)


def test_a_users_file_is_not_quantised() -> None:
    workload = Workload(role="model", label="m.tflite", path="/m.tflite")
    support = TfliteAdapter(DeviceOptions(precision="int8")).supports(workload)
    assert not support.ok
    assert "run as it is" in support.reason


def test_the_quantiser_is_part_of_the_key_where_it_wrote_the_file() -> None:
    def quantizer(precision: Precision) -> object:
        stable = TfliteAdapter(DeviceOptions(precision=precision)).fingerprint().stable
        return stable.get("quantizer")

    expected = f"ai-edge-quantizer {metadata.version('ai-edge-quantizer')}"
    assert quantizer("int8") == quantizer("int8-dynamic") == expected
    assert quantizer("fp32") is None
    # Where the file is quantised here and run there, only this machine knows.
    for device, facts in (("tflite", {"quantizer": expected}), ("cpu", {})):
        artifacts = Artifacts(f"{device}@ssh://board", DeviceOptions(precision="int8"))
        assert artifacts.facts == facts
    assert Artifacts("tflite@ssh://board", DeviceOptions()).facts == {}
