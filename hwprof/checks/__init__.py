"""Golden checks: is this machine fit for measuring, and does the engine tell the truth here?"""

from hwprof.checks.records import SelftestResult
from hwprof.checks.runner import QUICK, selftest

__all__ = ["QUICK", "SelftestResult", "selftest"]
