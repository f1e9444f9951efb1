"""What is asked of a device before its times count: it is there, it is the one, it is real."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions

if TYPE_CHECKING:
    from hwprof.estimate.latency_model import AdditiveLatencyModel
    from hwprof.measure.records import DeviceRef, Fingerprint


def device_fingerprint(ref: DeviceRef) -> Fingerprint:
    """Return the fingerprint of a device with its options, without measuring anything.

    Raises:
        DeviceError: the device is not there.
    """
    from hwprof.measure.pool import Pool

    # In a worker next to the device, as it is measured: its allocator, say, is not this process's.
    with Pool(ref, 0) as pool:
        _, hello = pool.start(1)
    return hello.fingerprint


def require_same_device(model: AdditiveLatencyModel, device: str, options: DeviceOptions) -> None:
    """Refuse a latency model on another device than its own, or with other options.

    Raises:
        IncompatibleRunError: naming every fact that differs, and what to do.
    """
    from hwprof.devices import device_ref

    model.require_fingerprint(device_fingerprint(device_ref(device, options)))


def given_options(options: DeviceOptions) -> list[str]:
    """Return the options that are not what they are by default, as on the command line.

    The script is left out: it steers what measures, and no prediction is of it.
    """
    usual = DeviceOptions()
    return [
        f"--{name} {getattr(options, name)}"
        for name in ("threads", "batch", "precision")
        if getattr(options, name) != getattr(usual, name)
    ]


def refuse_idle_options(options: DeviceOptions, flag: str, **measuring: object) -> None:
    """Refuse options of a device where none is named, and the latencies are those of a run.

    Args:
        options: as they were given.
        flag: the option that would name the device.
        measuring: options of measuring there by name, None where they were not given.

    Raises:
        PlanError: naming those that are not what they are by default.
    """
    named = given_options(options)
    named += [f"--{name} {value}" for name, value in measuring.items() if value is not None]
    if named:
        raise PlanError(
            f"{', '.join(named)}: options of a device, and none is named; latencies would be "
            f"those of the run, with its own options: name the device with {flag}, or leave "
            "them out"
        )


def refuse_emulated(device: str, what: str) -> None:
    """Keep the times of an emulated device out of what is taken for hardware.

    Args:
        device: as a fingerprint names it.
        what: what would be made of its times.

    Raises:
        PlanError: it is emulated.
    """
    from hwprof.devices.agent.board_server import EMULATED_MARK

    if EMULATED_MARK in device:
        raise PlanError(
            f"{what} is of an emulated device ({device!r}), whose times say nothing about any "
            "hardware: measure on a real one, or add --allow-emulated"
        )


def device_label(ref: DeviceRef) -> str:
    """Return what a device is called in results, marked where an emulator plays it.

    Raises:
        DeviceUnavailableError: a device on another machine cannot be reached.
    """
    if ref.address is None:
        return ref.name
    from hwprof.devices.agent.board_server import EMULATED_MARK
    from hwprof.devices.remote.board import board_at

    board = board_at(ref.address)
    board.connect()
    emulated = board.address.emulated or board.state.get("emulated") is True
    return f"{ref.name} {EMULATED_MARK}" if emulated else ref.name
