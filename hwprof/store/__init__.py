"""Run folders: everything measured, as it was measured, safe against being killed.

A run folder holds ``run.json`` (what was asked) and ``run.db`` (SQLite: fingerprints,
workloads, bursts with every raw sample, measurements, failures, imported latencies). Rows are
only ever added.
"""

from hwprof.store.records import ImportedBlock, ImportedNetwork
from hwprof.store.run import Run

__all__ = ["ImportedBlock", "ImportedNetwork", "Run"]
