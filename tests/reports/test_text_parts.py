"""The parts of a model as the terminal shows them."""

from __future__ import annotations

import io

from rich.console import Console

from hwprof.interval import Interval
from hwprof.measure.records import Fingerprint, Loaded, Measurement, plan_for
from hwprof.parts.records import Grouping, PartsResult, PartTime, with_shares
from hwprof.reports.text_parts import parts_text
from hwprof.workload import Workload

MEASUREMENT = Measurement(
    workload=Workload(role="model", label="net.onnx", path="net.onnx"),
    plan=plan_for("quick"),
    fingerprint=Fingerprint(stable={"device": "cpu"}),
    bursts=(),
    loaded=Loaded(load_s=0.1, artifact_bytes=1, peak_memory_bytes=None),
    level_s=0.010,
    ci95_s=(0.0099, 0.0102),
    median_s=0.011,
    p90_s=0.012,
    p99_s=0.013,
    verdict="clean",
    evidence=(),
)


def part(name: str, time_s: float, **fields: object) -> PartTime:
    defaults: dict[str, object] = {
        "kind": "block",
        "share": 0.0,
        "n_ops": 3,
        "op_types": ("Conv", "Clip", "Add", "Mul", "Pad"),
    }
    return PartTime(part=name, traced_s=time_s, **{**defaults, **fields})  # type: ignore[arg-type]


def shown(
    *parts: PartTime, grouped_by: Grouping = "modules", removed_per_op_s: float = 5e-6
) -> str:
    result = PartsResult(
        measurement=MEASUREMENT,
        parts=with_shares(parts),
        grouped_by=grouped_by,
        traced_s=0.012,
        untraced_s=0.010,
        removed_per_op_s=removed_per_op_s,
        n_processes=3,
    )
    stream = io.StringIO()
    Console(file=stream, width=140).print(parts_text(result))
    return stream.getvalue()


def test_parts_and_their_sum() -> None:
    text = shown(
        part("features/[0]", 0.007),
        part("features/[0]", 0.001, kind="layout", op_types=("ReorderOutput",)),
        part("classifier", 0.002, op_types=("Gemm",)),
    )
    assert "by module" in text
    assert "features/[0] " in text
    assert "features/[0] layout" in text
    assert "70.0 %" in text
    assert "3 Conv, Clip, Add, Mul, …" in text
    assert "against the level: 0.0 %" in text
    assert "1.20 times" in text
    assert "5.00 µs an operator, is removed" in text
    assert "do not add up" not in text


def test_a_sum_that_is_off_is_said_to_be() -> None:
    text = shown(part("a", 0.008))
    assert "−20.0 %" in text
    assert "do not add up to the level within 3 %" in text


def test_a_tracer_of_unknown_cost_is_said_to_be() -> None:
    text = shown(part("a", 0.010), grouped_by="types", removed_per_op_s=0.0)
    assert "not known on this device" in text
    assert "is removed" not in text


def test_what_was_timed_beside_the_network_has_columns() -> None:
    text = shown(
        part(
            "u0.l1",
            0.010,
            block="mbconv_k3_e6",
            isolated_hot_s=Interval(0.008, 0.0079, 0.0081),
            isolated_layout_s=0.002,
            differential_s=Interval(0.009, 0.0085, 0.0095),
        ),
        part("stem", 0.001, isolated_hot_s=Interval(0.001, 0.001, 0.001)),
        grouped_by="blocks",
    )
    assert "mbconv_k3_e6" in text
    assert "8.00 ms" in text
    assert "25 %" in text
    assert "9.00 ms ± 500 µs" in text
    assert "Conv, Clip" not in text
