"""Let a package be called: ``hwprof.search(...)`` runs what ``hwprof search`` runs.

The import names ``hwprof.devices`` and ``hwprof.search`` are packages, and the Python API
gives every command a function of the same name. Both hold when the package itself is callable.
Type checkers see the functions: ``hwprof`` imports them for their eyes only.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """A module whose call is forwarded to the function of its name in :mod:`hwprof.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._command()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """What a notebook shows of the call."""
        return inspect.signature(self._command())

    def _command(self) -> Callable[..., Any]:
        name = self.__name__.rpartition(".")[2]
        command: Callable[..., Any] = getattr(importlib.import_module("hwprof.api"), name)
        return command


def make_callable(module_name: str) -> None:
    """Make the imported module ``module_name`` callable."""
    sys.modules[module_name].__class__ = _CallableModule
