"""What did an upgrade change? The same workloads on two published versions of ONNX Runtime.

    python tests/bench/bench_upgrade.py --old 1.20.1 --out upgrade.md
    python tests/bench/bench_upgrade.py --old 1.20.1 --only 'mobile-mini mbconv_k3*' --max-time 20

The old version is installed from the package index into a throw-away environment, the new one is
the one that runs this script. Every workload is timed on both, side by side, in interleaved bursts
of workers of either environment. Without ``--out`` the page is printed. About a minute for each
workload at most; the stock suite has some forty.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

from hwprof.api.suites import suite_workloads
from hwprof.devices import device_ref, registrations
from hwprof.measure.machine import cpu_model
from hwprof.measure.records import DeviceOptions
from hwprof.progress import Progress
from hwprof.regression.environments import interpreter_of
from hwprof.regression.paired_verdicts import compare_pairs
from hwprof.regression.records import CompareResult
from hwprof.regression.side_by_side import CAP_S, Pair
from hwprof.regression.suite import STOCK, read_suite
from hwprof.reports.compare_files import markdown

RUNTIME = "onnxruntime"


@contextmanager
def environment(requirement: str) -> Iterator[str]:
    """Install a runtime, numpy and onnx into a throw-away environment; yield its Python."""
    with tempfile.TemporaryDirectory(prefix="hwprof-upgrade-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "numpy", "onnx", requirement], check=True
        )
        yield python


def compared(args: argparse.Namespace, python: str) -> CompareResult:
    """Compare every workload of the suite that is asked for."""
    workloads = [
        w for w in suite_workloads(read_suite(args.suite), 0) if fnmatch(w.label, args.only)
    ]
    ref = device_ref("cpu", DeviceOptions(threads=args.threads))
    with interpreter_of(python, registrations()["cpu"].packages) as interpreter:
        pairs = [Pair(label=w.label, base=w, new=w, base_python=interpreter) for w in workloads]
        return CompareResult(
            rows=compare_pairs(pairs, ref, threshold=0.01, cap_s=args.max_time, progress=_say)
        )


def _say(event: Progress) -> None:
    print(f"{event.done + 1} of {event.total}: {event.label}", file=sys.stderr)


def page(result: CompareResult, old: str, threads: int) -> str:
    """Return the page: what was compared, where, and the table."""
    return (
        f"# {RUNTIME} {old} -> {version(RUNTIME)}\n\n"
        f"{cpu_model()}, {threads} thread{'s' if threads > 1 else ''}; fp32, batch 1. Base: {old}; "
        f"new: {version(RUNTIME)}. Family-wise false-alarm rate 1 % (Holm).\n\n"
        + markdown(result.to_json())
    )


def main() -> None:
    """Install, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", required=True, help="a published version, such as 1.20.1")
    parser.add_argument("--suite", default=STOCK, help="a suite file; by default the stock suite")
    parser.add_argument("--only", default="*", help="shell pattern of the workloads' names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-time", type=float, default=CAP_S, help="seconds for one workload")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with environment(f"{RUNTIME}=={args.old}") as python:
        text = page(compared(args, python), args.old, args.threads)
    args.out.write_text(text) if args.out else print(text)


if __name__ == "__main__":
    main()
