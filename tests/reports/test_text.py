from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hwprof import api
from hwprof.cli.app import app
from hwprof.importing.csv_run import imported_fingerprint
from hwprof.measure.records import (
    PRESETS,
    Burst,
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
)
from hwprof.reports import text
from hwprof.space import Slot, get_space
from hwprof.units import format_interval, format_seconds
from hwprof.workload import Workload
from tests.made import block_table


def shown(renderable: object, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def make_measurement(**stable: bool) -> Measurement:
    burst = Burst(
        start_ns=np.arange(4) * 1_000_000,
        duration_ns=np.full(4, 900_000),
        wait_ns=None,
    )
    return Measurement(
        workload=Workload.from_callable("package.module:net", ()),
        plan=PRESETS["quick"],
        fingerprint=Fingerprint(stable={"device": "cpu", "hardware": "Xeon", **stable}),
        bursts=tuple(LabelledBurst(burst=burst, worker=w, round_index=0) for w in ("a", "b")),
        loaded=Loaded(
            load_s=0.25,
            artifact_bytes=4_404_019,
            peak_memory_bytes=None,
            warnings=("memory was not asked for",),
        ),
        level_s=8.9e-4,
        ci95_s=(8.8e-4, 9.0e-4),
        median_s=9.2e-4,
        p90_s=9.9e-4,
        p99_s=1.4e-3,
        verdict="contaminated",
        evidence=("steal 3.1 % [limit 2 %]",),
        telemetry={"provider": "XNNPACK, 3 pieces"},
    )


def test_what_would_fix_a_device_is_shown_as_it_is():
    rows = [
        {
            "name": "cpu-torch",
            "available": False,
            "reason": "run pip install 'hwprof[search]'",
            "runtime": "torch",
            "runtime_version": None,
            "hardware": None,
        }
    ]
    assert "pip install 'hwprof[search]'" in shown(text.devices_table(rows))


def test_what_several_devices_lack_is_said_once():
    lacking = {"available": False, "reason": "no GPU", "runtime": "torch", "hardware": None}
    rows = [{"name": name, "runtime_version": None, **lacking} for name in ("cuda", "cuda-eager")]
    out = shown(text.devices_table(rows))
    assert out.count("no GPU") == 1
    assert "as for cuda" in out


def test_a_measurement_leads_with_level_interval_and_verdict():
    out = shown(text.measurement_text(make_measurement()))
    assert "package.module:net" in out
    assert "890 µs [880, 900]" in out
    assert "contaminated: " in out
    assert "steal 3.1 % [limit 2 %]" in out
    assert "8 in 2 processes" in out
    assert "4.20 MiB" in out
    assert "memory was not asked for" in out
    assert "XNNPACK, 3 pieces" in out
    assert "EMULATED" not in out.upper()


def test_emulated_results_are_labelled(report_data):
    emulated = {"device": "cpu", "emulated": True}
    for renderable in (
        text.measurement_text(make_measurement(emulated=True)),
        text.reduction_text(replace(report_data.reduction, fingerprint=emulated)),
        text.front_text(
            replace(report_data.full_searches[0], measured_fingerprint={"stable": emulated})
        ),
        text.effects_text(report_data.effects, (), {"stable": emulated}),
    ):
        assert "Emulated device" in shown(renderable)


def test_effects_of_an_emulated_run_say_so_first(tmp_path, monkeypatch):
    known = imported_fingerprint("board (emulated)").stable
    emulated = Fingerprint(stable={**known, "emulated": True})
    monkeypatch.setattr("hwprof.importing.csv_run.imported_fingerprint", lambda name: emulated)
    table, run = block_table(tmp_path / "t.csv"), tmp_path / "run"
    api.import_(table, space="mobile-mini", device_name="board (emulated)", out=run)
    done = CliRunner().invoke(app, ["effects", str(run)])
    assert done.output.startswith("Emulated device")


def test_effects_show_every_kind_with_intervals(report_data):
    out = shown(text.effects_text(report_data.effects, report_data.insights, {}))
    for insight in report_data.insights:
        assert insight in out
    for effect in report_data.effects:
        if effect.kind != "block":
            assert format_interval(effect.latency, signed=True) in out
    assert out.count("unit 4, layer 3") == 2


def test_effects_without_accuracy_show_latency_alone(report_data):
    effects = tuple(replace(e, accuracy=None) for e in report_data.effects)
    out = shown(text.effects_text(effects, (), {}))
    assert "latency, ms against" in out
    assert "accuracy, pp against" not in out


def test_a_reduction_shows_every_drop_and_what_remains(report_data):
    out = shown(text.reduction_text(report_data.reduction))
    for drop in report_data.reduction.drops:
        assert drop.why in out
        assert format_interval(drop.latency_s) in out
    assert "unit 1 (up to 3 layers)" in out
    assert "Nothing was dropped" in shown(
        text.reduction_text(replace(report_data.reduction, drops=()))
    )


def test_a_front_shows_predicted_beside_measured(report_data):
    result = report_data.full_searches[0]
    out = shown(text.front_text(result))
    assert "measured on the device" in out
    assert "predicted" in out.splitlines()[2]
    for trial in result.front:
        assert format_seconds(trial.latency_s) in out


def test_percentiles_by_a_proxy_are_not_called_accuracies(report_data):
    result = report_data.full_searches[0]
    assert "accuracy" in shown(text.front_text(result))
    ranked = [replace(t, accuracy_source="percentile by proxy:macs") for t in result.front]
    out = shown(text.front_text(replace(result, front=tuple(ranked))))
    assert "percentile" in out
    assert "accuracy" not in out


def test_an_unconfirmed_front_says_so(report_data):
    result = replace(report_data.full_searches[0], confirmed=False)
    assert "not confirmed" in shown(text.front_text(result))


def test_costs_are_exact_beside_the_rounded():
    row = {"macs": 843_101_040, "params": 10_701_632}
    assert text.cost_text("big", row) == (
        "big: 843 M MACs (843,101,040), 10.7 M parameters (10,701,632)"
    )


SUMMARY = {
    "space": "ofa-mbv3-w1.2",
    "resolution_px": 224,
    "n_classes": 1000,
    "units": [
        {"unit": 0, "depths": [2, 3], "layers": [["a", "b"], ["a", "b"], ["a", "b"]]},
        {"unit": 1, "depths": [1], "layers": [["a"]]},
    ],
    "factors": {"stem_depth": [0, 2]},
    "n_encodings": 7371**5,
    "n_distinct": None,
}


def test_spaces_are_counted_in_a_line_and_told_in_detail():
    line = shown(text.spaces_table([SUMMARY]))
    assert "2.18×10¹⁹" in line
    assert "1 to 2" in line
    detail = shown(text.space_detail(SUMMARY))
    assert "unit 0" in detail
    assert "2, 3" in detail
    assert "stem_depth: 0, 2" in detail
    assert "distinct" not in detail
    assert "5 of them distinct" in shown(text.space_detail({**SUMMARY, "n_distinct": 5}))


def test_layers_that_differ_are_told_one_by_one():
    units = [{"unit": 0, "depths": [2], "layers": [["a"], ["a", "skip"]]}]
    detail = shown(text.space_detail({**SUMMARY, "units": units}))
    assert "unit 0, layer 1" in detail


def test_a_profile_tells_what_is_left_and_how_it_predicts(report_data):
    row = {
        "out": "run",
        "n_done": 120,
        "n_failed": 2,
        "n_left": 30,
        "holdout": report_data.holdout.to_json(),
        "seconds": 1234.4,
    }
    out = shown(text.profile_text(row))
    for words in ("120", "30", "median error 1.3 %", "513 networks", "20 min 34 s", "run"):
        assert words in out
    assert "predicts" not in shown(text.profile_text({**row, "holdout": None}))


def test_predictions_name_their_network(report_data):
    arch = report_data.full_searches[0].front[0].arch
    rows = [{"arch": arch.to_json(), "latency_s": 0.02, "lo_s": 0.019, "hi_s": 0.021}]
    out = shown(text.predictions_table(rows), width=400)
    assert "20.0 ms" in out
    assert "19.0 ms to 21.0 ms" in out
    assert str(arch) in out


def test_predictions_tell_networks_of_other_widths_apart():
    space = get_space("ofa-resnet50")
    units = tuple(space.choices(Slot(u, 0))[:1] * d for u, d in enumerate(space.min_depth))
    archs = [space.assemble(units, (0, 0, 0, 0, 0, 0, last)) for last in range(3)]
    rows = [{"arch": a.to_json(), "latency_s": 0.02, "lo_s": 0.019, "hi_s": 0.021} for a in archs]
    out = shown(text.predictions_table(rows), width=400)
    for last in range(3):
        assert f"stem depth 0 | widths 0 0 0 0 0 {last}" in out


def test_training_says_whose_accuracies_its_figures_are():
    out = shown(
        text.training_text({"n_networks": 16, "mean_pct": 14.1, "smallest_network_pct": 9.5})
    )
    for name, figure in (
        ("random networks", "16"),
        ("their mean accuracy", "14.10 %"),
        ("fewest MACs", "9.50 %"),
    ):
        assert f"{name} {figure}" in " ".join(out.split())


def test_training_and_quickstart_show_every_figure():
    out = shown(text.training_text({"accuracy_pct": 91.234, "wall_s": 75.2, "out": None}))
    assert "91.23 %" in out
    assert "1 min 15 s" in out
    row = {
        "page": "quickstart/report/index.html",
        "seconds": {"train": 61.0},
        "n_networks": 100,
        "holdout": None,
        "hypervolume": {"full-nsga2": 0.239},
        "n_drops": 3,
    }
    out = shown(text.quickstart_text(row))
    for words in ("100", "239 ms·pp", "1 min 01 s", "quickstart/report/index.html"):
        assert words in out


@pytest.mark.parametrize("width", [60, 80])
def test_narrow_terminals_are_not_overrun(report_data, width):
    out = shown(text.front_text(report_data.full_searches[0]), width=width)
    assert all(len(line) <= width for line in out.splitlines())
