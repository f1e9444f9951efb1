"""``bench --batch 1,8``: what it prints and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hwprof.api.main_job import QuickstartSettings, _Journal
from hwprof.cli.app import app
from hwprof.errors import StoreError
from hwprof.reports.batch_text import batches_text, gpu_times

NETWORK = "proxyless-mobile"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", NETWORK, "--device", "null", *arguments])


def test_one_row_a_batch_size() -> None:
    result = run("--batch", "1,4,4", "--preset", "quick", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["batch"] for row in rows] == [1, 4]
    for row in rows:
        found = row["measurement"]
        assert found["fingerprint"]["stable"]["batch"] == row["batch"]
        assert row["per_image_s"] == pytest.approx(found["level_s"] / row["batch"])
        assert row["failure"] is None


def test_one_batch_size_prints_what_it_always_did() -> None:
    result = run("--batch", "4", "--preset", "quick", "--json")
    assert json.loads(result.stdout)["fingerprint"]["stable"]["batch"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "1,x"), "expected a size, or several"),
        (("--batch", "0"), "expected a size, or several"),
        (("--batch", "1,8", "--parts"), "several batch sizes go without"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_quickstart_from_before_there_were_batches_goes_on(tmp_path: Path) -> None:
    request = {**asdict(QuickstartSettings()), "device": "cpu", "data": None, "seed": 0}
    earlier = {name: value for name, value in request.items() if name != "batch"}
    journal = {"request": earlier, "seconds": {"train": 2.0}}
    (tmp_path / "quickstart.json").write_text(json.dumps(journal))
    assert _Journal(tmp_path, request).seconds == {"train": 2.0}
    with pytest.raises(StoreError, match="a quickstart with batch 1, not 8"):
        _Journal(tmp_path, {**request, "batch": 8})


def measured(**telemetry: float) -> dict[str, Any]:
    return {
        "level_s": 2e-3,
        "ci95_s": [1.98e-3, 2.02e-3],
        "peak_memory_bytes": 2**20,
        "verdict": "clean",
        "telemetry": telemetry,
    }


def shown(renderable: Any) -> str:
    console = Console(width=160, record=True, file=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_table_names_a_failure_beside_what_worked() -> None:
    times = {"gpu_median_s": 2e-3, "enqueue_median_s": 1e-5, "end_to_end_median_s": 2.1e-3}
    rows: list[dict[str, Any]] = [
        {"batch": 8, "per_image_s": 2.5e-4, "failure": None, "measurement": measured(**times)},
        {"batch": 128, "per_image_s": None, "failure": "out of memory", "measurement": None},
    ]
    text = shown(batches_text(rows))
    assert "4,000" in text
    assert "batch 128: out of memory" in text


def test_a_network_that_takes_seconds_has_a_rate() -> None:
    rows = [{"batch": 1, "per_image_s": 2.5, "failure": None, "measurement": measured()}]
    (line,) = [line for line in shown(batches_text(rows)).splitlines() if "clean" in line]
    assert line.split()[5:7] == ["2.50", "s"]
    assert line.split()[7] == "0.400"


def test_an_enqueue_that_decides_is_said() -> None:
    times = {"gpu_median_s": 1e-4, "enqueue_median_s": 9e-5, "end_to_end_median_s": 2e-4}
    assert "90 %" in gpu_times(times)[1][1]
    assert len(gpu_times({**times, "enqueue_median_s": 7.9e-5})) == 1
    assert gpu_times({}) == []
