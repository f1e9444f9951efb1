"""`hwprof search --strategy te-nas`: the whole way, and mistakes that get one line."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hwprof.api import cost, report, retime, search, search_te_nas
from hwprof.errors import DataError, PlanError, StoreError
from hwprof.reports.untrained_text import untrained_text
from hwprof.search.strategies import indicators
from hwprof.search.strategies.indicators import Indicators
from hwprof.space import Slot, get_space
from hwprof.space.nasbench201 import cell_string
from tests.cli.running import hwprof_here

SPACE = get_space("nasbench201")
FEW = SPACE.restrict(
    {
        Slot(0, edge): ("skip_connect", "nor_conv_3x3") if edge < 2 else ("skip_connect",)
        for edge in range(6)
    }
)
COMMAND = [
    *("search", "--space", "nasbench201", "--latency", "table.csv", "--strategy", "te-nas"),
    *("--out", "out"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of the few cells: a millisecond, and another for each convolution."""
    rows = ["arch,latency_ms"]
    for cell in product(*(FEW.choices(slot) for slot in FEW.slots)):
        rows.append(f"{cell_string(cell)},{1 + cell.count('nor_conv_3x3')}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def untrained(**_: object):
    """Indicators that find every part of a space equally good."""
    return lambda space, parts, seeds: [Indicators(condition=2.0, regions=3) for _ in parts]


def test_comes_to_a_network_within_the_target_and_measures_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is real is tested in tests/search.
    monkeypatch.setattr(indicators, "Untrained", untrained)
    found = search_te_nas(
        space=FEW,
        latency=folder / "table.csv",
        out=folder / "out",
        target_ms=1.5,
        measure_on="null",
    )
    row = found.to_json()
    assert found.arch.cell == cell_string(["skip_connect"] * 6)
    assert (row["latency_s"], row["latency_source"], row["ci95_s"]) == (1e-3, "table", None)
    assert row["measured_s"] > 0.0
    assert not [key for key in row if "accuracy" in key]
    kept = json.loads((folder / "out" / "te-nas.json").read_text())
    assert kept == json.loads(json.dumps(row))
    head, *lines = [str(line) for line in untrained_text(row).renderables]
    assert head.endswith("chosen untrained; its accuracy is not known")
    assert "latency, table: 1.00 ms (target 1.50 ms)" in lines
    assert any(line.startswith("latency on null, measured: ") for line in lines)
    # What it wrote is an ARCH, as every command takes it.
    assert cost(str(folder / "out" / "network.json")).arch == found.arch


def test_network_without_a_latency_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indicators, "Untrained", untrained)
    table = folder / "table.csv"
    table.write_text(f"arch,latency_ms\n{cell_string(['none'] * 6)},1\n")
    asked: dict[str, Any] = {"space": FEW, "latency": table, "out": folder / "out"}
    with pytest.raises(DataError, match=r"has no latency for.*the network is kept in"):
        search_te_nas(**asked)
    (cell,) = product(*(FEW.choices(slot)[-1:] for slot in FEW.slots))
    kept = folder / "out" / "network.json"
    assert cost(str(kept)).arch.cell == cell_string(cell)
    # What was found stands once its latency is known.
    table.write_text(f"arch,latency_ms\n{cell_string(cell)},7\n")
    assert search_te_nas(**asked).latency_s == pytest.approx(7e-3)


def test_general_search_says_which_call_it_is() -> None:
    with pytest.raises(PlanError, match="search_te_nas"):
        search(space="nasbench201", latency="table.csv", strategy="te-nas")


def test_its_folder_is_refused_where_a_front_is_wanted(tmp_path: Path) -> None:
    # As it is with a network that was measured: a run of finalists, but no search.
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "te-nas.json").write_text("{}")
    with pytest.raises(StoreError, match="without an accuracy it is on no front"):
        report([tmp_path], out=tmp_path / "page")
    with pytest.raises(StoreError, match="without an accuracy it is on no front"):
        retime(tmp_path, out=tmp_path / "timed", device="null")


MISTAKES = {
    "accuracies": (["--accuracy", "table:a.csv"], "--accuracy: te-nas judges no accuracy"),
    "a budget": (["--max-evals", "5", "--max-time", "5m"], "--max-evals, --max-time: te-nas"),
    "several finalists": (["--finalists", "3"], "--finalists: te-nas"),
    "a batch of nothing": (["--batch", "8"], "name the device with --measure-on"),
    "a preset of nothing": (["--preset", "strict"], "--preset strict: options of a device"),
    "options of proxyless": (["--epochs", "3"], "(--epochs) mean nothing to te-nas"),
    "layers": (["--space", "mobile-mini"], "expected nasbench201"),
    "a target of nothing": (["--target-ms", "0"], "--target-ms is 0"),
    "a table with gaps": (["--target-ms", "2"], "'none': name another source with --latency"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(name: str, folder: Path) -> None:
    more, expected = MISTAKES[name]
    done = hwprof_here(*COMMAND, *more, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert expected in " ".join(done.stderr.split())
