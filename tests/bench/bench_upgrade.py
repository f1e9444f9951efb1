"""What did an upgrade change? The same workloads on two published versions of a runtime.

    python -m tests.bench.bench_upgrade [--out docs/results/upgrade.md] [--max-time 10m] [--quick]
    python -m tests.bench.bench_upgrade --runtimes litert --litert 2.1.6 --blocks 20

The old versions are installed from the package index into throw-away environments (``onnxruntime``
for the device ``cpu``, ``ai-edge-litert`` for ``tflite``); the new ones are those that run this
script. Every workload is timed on both, side by side, in interleaved bursts of workers of either
environment, as ``hwprof compare --base-python`` does; all of a runtime are judged together (Holm).
Blocks are taken evenly over the distinct ones of a space. LiteRT before 2.1 lacks what hwprof writes
its models with, and every row then says so.

Both runtimes with ten blocks and two networks each should take about five minutes on two quiet
cores, a minute of it installing. ``--max-time`` is shared out: a runtime gets its part of what is
left, and a workload its part of what installing leaves of that (never more than a minute). The page
is written after every runtime.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hwprof.campaign import isolated_workloads
from hwprof.devices import device_ref, registrations
from hwprof.measure import machine
from hwprof.measure.records import DeviceOptions
from hwprof.progress import Progress
from hwprof.regression.environments import interpreter_of
from hwprof.regression.paired_verdicts import compare_pairs
from hwprof.regression.records import CompareResult
from hwprof.regression.side_by_side import CAP_S, Pair
from hwprof.reports.compare_files import markdown
from hwprof.space import NAMED_ARCHITECTURES, get_space
from hwprof.units import format_duration
from hwprof.workload import Workload
from tests.bench import common
from tests.bench.arguments import seconds
from tests.bench.environments import environment, installed

SPACE = "proxylessnas"
NETWORKS = ("proxyless-cpu", "proxyless-mobile")
PAGE = common.ROOT / "docs" / "results" / "upgrade.md"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime whose versions are compared, and what its models are written with."""

    title: str
    device: str
    distribution: str
    old: str
    writers: tuple[str, ...]


RUNTIMES = {
    "onnxruntime": Runtime(
        title="ONNX Runtime",
        device="cpu",
        distribution="onnxruntime",
        old="1.20.1",
        writers=("onnx",),
    ),
    "litert": Runtime(
        title="LiteRT",
        device="tflite",
        distribution="ai-edge-litert",
        old="2.1.0",
        writers=("flatbuffers",),
    ),
}


def workloads(n_blocks: int, networks: Sequence[str]) -> list[Workload]:
    """Return blocks, evenly over the distinct ones of the space, and published networks."""
    blocks = list(isolated_workloads(get_space(SPACE)))
    taken = np.unique(np.linspace(0, len(blocks) - 1, n_blocks).round().astype(int))
    found = [blocks[i] for i in taken]
    return found + [Workload.network(NAMED_ARCHITECTURES[name], name) for name in networks]


def compared(
    runtime: Runtime, asked: Sequence[Workload], threads: int, deadline_s: float
) -> CompareResult:
    """Compare every workload on the old version and the one that runs here."""
    old = f"{runtime.distribution}=={runtime.old}"
    common.say(f"installing {old} from the package index")
    ref = device_ref(runtime.device, DeviceOptions(threads=threads))
    with (
        # The same writers on both sides, so that the models are the same too.
        environment(old, *map(installed, runtime.writers)) as python,
        interpreter_of(python, registrations()[runtime.device].packages) as interpreter,
    ):
        cap_s = min(CAP_S, (deadline_s - time.monotonic()) / len(asked))
        pairs = [Pair(label=w.label, base=w, new=w, base_python=interpreter) for w in asked]
        return CompareResult(
            rows=compare_pairs(pairs, ref, threshold=0.01, cap_s=cap_s, progress=_teller())
        )


def _teller() -> Callable[[Progress], None]:
    """Return what says which workload is being compared, once each."""
    said: set[int] = set()

    def tell(event: Progress) -> None:
        if event.done not in said:
            said.add(event.done)
            common.say(f"{event.done + 1} of {event.total}: {event.label.rpartition(':')[0]}")

    return tell


def section(runtime: Runtime, result: CompareResult) -> str:
    """Return a runtime's part of the page: in a sentence what changed, then the table."""
    versions = f"{runtime.title} {runtime.old} → {version(runtime.distribution)}"
    return f"## {versions}\n\n{changes(result)}\n\n{markdown(result.to_json())}"


def changes(result: CompareResult) -> str:
    """Return in words what became slower and faster, the largest first, and by how much."""
    parts = []
    for verdict, word in (("REGRESSED", "slower"), ("IMPROVED", "faster")):
        rows = [r for r in result.rows if r.verdict == verdict and r.shift is not None]
        rows.sort(key=lambda r: -abs(r.shift or 0.0))
        named = "; ".join(f"{r.workload} ({r.shift:+.1%})" for r in rows)
        parts.append(f"{len(rows)} of {len(result.rows)} {word}" + (f": {named}" if rows else ""))
    for verdict, word in (("INCONCLUSIVE", "open"), ("NOT_COMPARABLE", "not comparable")):
        if n := sum(r.verdict == verdict for r in result.rows):
            parts.append(f"{n} of {len(result.rows)} {word}")
    shifts = [r.shift for r in result.rows if r.shift is not None]
    if shifts:
        typical = float(np.expm1(np.mean(np.log1p(shifts))))
        parts.append(f"Geometric mean of all {len(shifts)} shifts: {typical:+.1%}")
    return ". ".join(parts) + "."


def page(sections: Sequence[str], threads: int, seconds: float) -> str:
    """Return the page."""
    words = (
        f"{machine.cpu_model()}, {machine.stable_facts()['os']}, {threads} "
        f"thread{'s' if threads > 1 else ''}, fp32, batch 1; {SPACE} blocks alone and published "
        f"networks. `python -m tests.bench.bench_upgrade`, {format_duration(seconds)} in all, "
        "installing included. Positive shifts are slower; EQUIVALENT is what is not slower by 1 % "
        "or more, whether or not it is faster. The false-alarm rate is 1 % for "
        "*slower*, and 1 % for *faster*, of all the workloads of a runtime together (Holm); "
        "*detectable* is the slowdown that would have been found four times in five."
    )
    parts = ["# What an upgrade of the runtime changed", words, *(s.rstrip() for s in sections)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Install, compare, write."""
    began_s = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    for name, runtime in RUNTIMES.items():
        parser.add_argument(f"--{name}", default=runtime.old, metavar="VERSION", help="the old one")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--networks", nargs="*", choices=NAMED_ARCHITECTURES, default=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-time", type=seconds, default=600.0, help="e.g. 10m")
    parser.add_argument("--quick", action="store_true", help="two blocks, to see that it works")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; --quick only prints it")
    options = parser.parse_args()
    asked = workloads(
        2 if options.quick else options.blocks, () if options.quick else options.networks
    )
    sections = []
    for index, name in enumerate(options.runtimes):
        runtime = replace(RUNTIMES[name], old=getattr(options, name))
        left_s = began_s + options.max_time - time.monotonic()
        deadline_s = time.monotonic() + left_s / (len(options.runtimes) - index)
        sections.append(section(runtime, compared(runtime, asked, options.threads, deadline_s)))
        text = page(sections, options.threads, time.monotonic() - began_s)
        if not options.quick:
            options.out.write_text(text, encoding="utf-8")
    if options.quick:
        print(text)


if __name__ == "__main__":
    main()
