"""Let a package be called: ``hwprof.search(...)`` runs what ``hwprof search`` runs.

The import names ``hwprof.devices`` and ``hwprof.search`` are packages, and the Python API
gives every command a function of the same name. Both hold when the package itself is callable.
Type checkers see packages only; typed code calls ``hwprof.api.search(...)`` instead.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """A module whose call is forwarded to the function of its name in :mod:`hwprof.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        command = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("hwprof.api"), command)(*args, **kwargs)


def make_callable(module_name: str) -> None:
    """Make the imported module ``module_name`` callable."""
    sys.modules[module_name].__class__ = _CallableModule
