"""Results → rows → figures, page, tables and text."""

from hwprof.reports.views import (
    Campaign,
    Hypervolume,
    IsolatedBlock,
    ReportData,
    VerdictCount,
)
from hwprof.reports.writing import write_report

__all__ = [
    "Campaign",
    "Hypervolume",
    "IsolatedBlock",
    "ReportData",
    "VerdictCount",
    "write_report",
]
