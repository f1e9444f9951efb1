"""Golden checks: is this machine fit for measuring, and does the engine tell the truth here?"""

from hwprof.checks.records import CheckResult, SelftestResult
from hwprof.checks.runner import CHECKS, QUICK, selftest

__all__ = ["CHECKS", "QUICK", "CheckResult", "SelftestResult", "selftest"]
