"""Does hwprof tell the truth on this GPU, and what does it find? Ten minutes, one table.

    python -m tests.hardware.gpu_check --out gpu-check [--max-time 9m] [--networks 300]
                                       [--batches 1,32] [--sections outputs,agreement,...]

Sections, in order: ``facts`` (device, driver, clocks), ``outputs`` (every device and precision
against a float64 reference), ``agreement`` (golden check 13: spin, graph against stream, events
inside a graph and the profiler against the whole, cache flush), ``floor`` (distance to bytes over
bandwidth, MACs over the matrix rate, launches times launch cost), ``search`` (peak memory and
images/s of search steps), ``effects`` (block effects of two spaces), ``batches`` (a network at
batch 1, 8, 32, 128 on every device). ``effects`` takes the time that is left; called again it goes
on.

Writes ``gpu-check.json``, row by row, and the run folders into --out. Rows of earlier calls stay,
except those of a section that is begun again. Exit code 0: every check held; 1: one did not; 3:
no GPU is here.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.devices.cuda_presence import timing_lacks
from hwprof.errors import HwprofError

if TYPE_CHECKING:
    from tests.hardware.gpu_sections import Row

NO_GPU = 3
RESULTS = "gpu-check.json"
NO_TIME = "no time was left"
SECTIONS = ("facts", "outputs", "agreement", "floor", "search", "effects", "batches")


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


def run(asked: argparse.Namespace) -> list[Row]:
    """Run the sections, printing every row as soon as it is known."""
    from hwprof.cli.options import batches_of, seconds
    from tests.hardware import gpu_effects, gpu_floor, gpu_sections
    from tests.hardware.gpu_sections import Row

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
    wanted = [name for name in SECTIONS if name in asked.sections.split(",")]
    file = asked.out / RESULTS
    earlier = _rows_in(file)
    rows: list[Row] = []

    def told(row: Row) -> None:
        rows.append(row)
        show(row)
        # At once: what ends the script from outside must not take the rows with it.
        _write(file, [*earlier, *map(asdict, rows)])

    for name in wanted:
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
        free_gpu()
    return rows


def _rows_in(file: Path) -> list[dict[str, Any]]:
    """Return the rows that an earlier call has left."""
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return rows


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows, so that there is a whole file at every moment."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1))
    part.replace(file)


def free_gpu() -> None:
    """Give back what a section has left on the GPU: workers of the next one need the room."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


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
    rows = run(asked)
    failing = [row for row in rows if row.holds is False]
    print(f"\n{len(rows)} rows in {asked.out / RESULTS}; {len(failing)} checks fail")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
