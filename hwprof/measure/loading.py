"""What a device's registration names, as ``package.module:name``, imported when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from hwprof.errors import DeviceUnavailableError


def load_factory(name: str, target: str) -> Callable[..., Any]:
    """Import what ``package.module:name`` names for the device ``name``.

    Raises:
        DeviceUnavailableError: it is not there.
    """
    module_name, _, attribute = target.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise DeviceUnavailableError(
            f"cannot load the adapter of {name!r} from {target!r}: {error}"
        ) from error
    return found


def lack(check: str) -> str:
    """Return what a device's check says is missing here; an empty text where nothing is.

    A check that fails is told as what is missing: another package's fault hides no other device.
    """
    try:
        reason: str = load_factory("the check", check)()
    except Exception as error:  # noqa: BLE001 - a check of another package may raise anything
        return f"its check {check!r} failed: {type(error).__name__}: {error}"
    return reason
