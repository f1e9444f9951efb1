"""Does hwprof tell the truth on this GPU, and what does it find? Ten minutes, one table.

    python -m tests.hardware.gpu_check --out gpu-check [--max-time 9m] [--networks 300]
                                       [--batches 1,32] [--sections outputs,agreement,...]

Sections, in order: ``facts`` (device, driver, clocks), ``outputs`` (every device and precision
against a float64 reference), ``agreement`` (golden check 13: spin, graph against stream, events
inside a graph and the profiler against the whole, cache flush), ``floor`` (distance to bytes over
bandwidth, MACs over the matrix rate, launches times launch cost), ``search`` (peak memory and
images/s of search steps), ``effects`` (block effects of two spaces), ``batches`` (a network at
batch 1, 8, 32, 128 on every device). ``effects`` takes the time that is left; called again it goes
on. Each section has a process of its own: one that crashes, hangs or loses the GPU takes no other
with it.

Writes ``gpu-check.json``, row by row, and the run folders into --out. Rows of earlier calls stay,
except those of a section that is begun again. Exit code 0: every check held; 1: one did not; 3:
no GPU is here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.devices.nvidia.cuda_presence import timing_lacks
from hwprof.errors import HwprofError

if TYPE_CHECKING:
    from tests.hardware.gpu_sections import Row

NO_GPU = 3
MODULE = "tests.hardware.gpu_check"
RESULTS = "gpu-check.json"
NO_TIME = "no time was left"
SECTIONS = ("facts", "outputs", "agreement", "floor", "search", "effects", "batches")
LONGEST_S = 240.0
"""For a section before the last two, which take what time is left: the others want theirs."""


def arguments() -> argparse.Namespace:
    """Return what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--max-time", default="9m", help="of all sections; what is begun is ended")
    parser.add_argument("--networks", type=int, default=300, help="of a space and batch size")
    parser.add_argument("--batches", default="1,32", help="of the block effects")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="only these")
    asked = parser.parse_args()
    unknown = set(asked.sections.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"--sections has {sorted(unknown)}; expected some of {', '.join(SECTIONS)}")
    return asked


def run(asked: argparse.Namespace, deadline_s: float | None = None) -> None:
    """Run the sections, printing every row as soon as it is known."""
    from hwprof.cli.options import batches_of, seconds
    from tests.hardware import gpu_effects, gpu_floor, gpu_sections
    from tests.hardware.gpu_sections import Row

    if deadline_s is None:
        deadline_s = time.monotonic() + seconds("--max-time", asked.max_time)
    asked.out.mkdir(parents=True, exist_ok=True)
    sections: dict[str, Callable[[], Iterator[Row]]] = {
        "facts": gpu_sections.facts,
        "outputs": gpu_sections.outputs,
        "agreement": gpu_sections.agreement,
        "batches": gpu_sections.batches,
        "floor": gpu_floor.floors,
        "search": gpu_floor.search_steps,
        "effects": lambda: gpu_effects.effects(
            asked.out, asked.networks, batches_of(asked.batches), deadline_s
        ),
    }
    file = asked.out / RESULTS
    earlier = _rows_in(file)
    rows: list[Row] = []

    def told(row: Row) -> None:
        rows.append(row)
        show(row)
        # At once: what ends the script from outside must not take the rows with it.
        _write(file, [*earlier, *map(asdict, rows)])

    for name in wanted(asked):
        late = time.monotonic() > deadline_s
        # What an earlier call measured goes when the section is measured again, not before.
        earlier = [
            row for row in earlier if row["section"] != name or (late and row["what"] != NO_TIME)
        ]
        if late:
            told(Row(section=name, what=NO_TIME, value="-", holds=False))
            continue
        try:
            for row in sections[name]():
                told(row)
        except Exception as error:  # noqa: BLE001 - a row that fails; the other sections go on
            if not isinstance(error, HwprofError):
                traceback.print_exc()
            what = f"ended by {type(error).__name__}: {error}"
            told(Row(section=name, what=what, value="-", holds=False))


def wanted(asked: argparse.Namespace) -> list[str]:
    """Return the sections that were asked for, in order."""
    return [name for name in SECTIONS if name in asked.sections.split(",")]


def run_apart(asked: argparse.Namespace) -> None:
    """Run every section in a process of its own."""
    from hwprof.cli.options import seconds
    from tests.hardware.gpu_sections import Row

    deadline_s = time.monotonic() + seconds("--max-time", asked.max_time)
    for name in wanted(asked):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0.0:
            run(argparse.Namespace(**{**vars(asked), "sections": name}), deadline_s)
        elif ended := _ending_of(asked, name, left_s):
            row = Row(section=name, what=ended, value="-", holds=False)
            show(row)
            asked.out.mkdir(parents=True, exist_ok=True)
            file = asked.out / RESULTS
            # Where it had not begun to write, an earlier call may have left the very same.
            _write(file, [*(r for r in _rows_in(file) if r != asdict(row)), asdict(row)])


def _ending_of(asked: argparse.Namespace, section: str, left_s: float) -> str:
    """Run a section in a process; return how that ended, empty where it ended well."""
    options = ("out", "networks", "batches")
    told = {f"--{name}": str(getattr(asked, name)) for name in options}
    told |= {"--sections": section, "--max-time": f"{left_s:.2f}s"}
    process = subprocess.Popen([sys.executable, "-m", MODULE, *itertools.chain(*told.items())])
    # They end what they have begun, hence the minute more.
    limit_s = max(LONGEST_S, left_s + 60.0) if section in SECTIONS[-2:] else LONGEST_S
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"ended after {limit_s:.0f} s: it hangs, or takes too long"
    failing = [r for r in _rows_in(asked.out / RESULTS) if r["holds"] is False]
    # 1 is a check that fails, and has its row then, or a traceback.
    if code == 0 or (code == 1 and section in {r["section"] for r in failing}):
        return ""
    return f"its process ended with exit code {code}"


def _rows_in(file: Path) -> list[dict[str, Any]]:
    """Return the rows that an earlier call has left."""
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return rows


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows, so that there is a whole file at every moment."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1))
    part.replace(file)


def show(row: Row) -> None:
    """Print one row."""
    mark = {True: "holds", False: "FAILS", None: ""}[row.holds]
    print(f"{row.section:<10}{row.what:<64}{row.value:>22}  {row.bar:<16}{mark}", flush=True)


def main() -> int:
    """Check, print, write; return the exit code."""
    asked = arguments()
    if reason := timing_lacks():
        print(f"nothing to check: {reason}", file=sys.stderr)
        return NO_GPU
    sections = wanted(asked)
    run(asked) if len(sections) == 1 else run_apart(asked)
    rows = [row for row in _rows_in(asked.out / RESULTS) if row["section"] in sections]
    failing = [row for row in rows if row["holds"] is False]
    print(f"{len(rows)} rows in {asked.out / RESULTS}; {len(failing)} checks fail\n", flush=True)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
