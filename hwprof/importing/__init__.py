"""Runs and tables from someone else's measurements: closed NPUs, vendor tools, publications."""

from hwprof.importing.csv_run import import_csv
from hwprof.importing.networks import parse_architecture, read_architectures, read_latency_table

__all__ = ["import_csv", "parse_architecture", "read_architectures", "read_latency_table"]
