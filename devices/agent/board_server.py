"""Any adapter, next to its device on another machine: pinned, watched and cooled there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hwprof.devices.agent.conditions import CampaignLoad, Conditions, Cooling, SustainedLoad
from hwprof.devices.agent.leases import announce_worker, campaign_pids
from hwprof.devices.agent.models import ModelFolder
from hwprof.devices.agent.sensors import Sensors, cpu_list, is_emulated, parse_cpu_list
from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure import machine, wire
from hwprof.measure.load import LoadMonitor, check_threads
from hwprof.measure.records import Burst, Cache, Fingerprint, Loaded, MeasurePlan
from hwprof.measure.worker import AdapterServer, open_adapter
from hwprof.protocols import (
    AdapterAround,
    Check,
    CountsProcesses,
    DeviceAdapter,
    Disturbance,
    Executable,
    OpTrace,
    ReportsDisturbance,
    Support,
)
from hwprof.workload import Workload

EMULATED_MARK = "(emulated)"
"""Stands behind the name of every device that an emulator plays."""
EMULATED = (
    "emulated device: an emulator ran this, so its times say nothing about any hardware and are "
    "kept out of searches and fronts unless asked for: measure on the device itself"
)
UNTOLD_LOAD = (
    "the device does not tell the load of others, so nothing here says it was quiet: end what else "
    "runs there, and measure twice"
)


class BoardServer(AdapterServer):
    """A worker on a board.

    Args:
        folder: the agent's folder on the board.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._models = ModelFolder(folder / "models")
        self._workers = folder / "workers"
        self._announced = announce_worker(self._workers, os.getppid())
        self._emulated = False

    def open_device(self, header: Mapping[str, Any]) -> DeviceAdapter:
        """Pin this process, then open the adapter that the request names."""
        ref, board = wire.device_from(header["device"]), header["board"]
        self._emulated = bool(board["emulated"]) or is_emulated()
        sensors = Sensors()
        cpus = pin(sensors, board["cpus"])
        check_threads(ref.options.threads)
        own_pids = partial(campaign_pids, self._workers)
        others = CampaignLoad(own_pids)
        conditions = Conditions(sensors, cpus, Cooling(start_c=board["start_c"]), others)
        facts = board_facts(sensors, cpus, str(board["link"]), self._emulated)
        facts["stable"].update(board["facts"])
        load = SustainedLoad(self._folder / "load")
        adapter = open_adapter(ref)
        if isinstance(adapter, CountsProcesses):
            # Each worker here has a supervisor of its own: no parent tells that they are of one.
            adapter.spare(own_pids)
        return BoardAdapter(adapter, conditions, load, self._models, facts)

    def warnings(self) -> list[str]:
        """Say what about this board makes its numbers less than they seem."""
        found = [EMULATED] if self._emulated else []
        if LoadMonitor().mark() is None:
            found.append(UNTOLD_LOAD)
        return [*found, *machine.warnings()]


def pin(sensors: Sensors, asked: str | None) -> frozenset[int]:
    """Keep this process, and the threads it will start, on some CPUs; return which.

    Without ``asked`` it is the fastest cluster of an ARM device with several, else all CPUs.

    Raises:
        PlanError: one that is asked for is not there, or none is.
        DeviceUnavailableError: the device does not grant them.
    """
    clusters = sensors.clusters()
    wanted: frozenset[int] = frozenset()
    if asked is not None:
        wanted, there = frozenset(parse_cpu_list(asked)), machine.usable_cpus()
        # The system itself passes over what is not there, as long as one of them is.
        if not wanted or not wanted <= there:
            named = f"{_listed(wanted - there)}, which is not there" if wanted else "no CPU"
            raise PlanError(
                f"?cpus={asked} names {named}: expected some of {_listed(there)} "
                f"({'; '.join(map(str, clusters))})"
            )
    elif len(clusters) > 1 and platform.machine().startswith(("aarch64", "arm")):
        wanted = frozenset(clusters[-1].cpus)
    if wanted:
        try:
            os.sched_setaffinity(0, wanted)
        except OSError as error:
            raise DeviceUnavailableError(
                f"the device does not grant the CPUs {_listed(wanted)} ({error}); "
                f"it has {'; '.join(map(str, clusters))}: name others with ?cpus=LIST"
            ) from error
    return machine.usable_cpus()


def _listed(cpus: frozenset[int]) -> str:
    return cpu_list(tuple(sorted(cpus)))


def board_facts(
    sensors: Sensors, cpus: frozenset[int], link: str, emulated: bool
) -> dict[str, dict[str, machine.Fact]]:
    """Return the stable and the volatile facts that only the board itself knows."""
    clusters = sensors.clusters()
    mine = [c for c in clusters if not cpus.isdisjoint(c.cpus)]
    stable: dict[str, machine.Fact] = {
        "link": link,
        "clusters": "; ".join(map(str, clusters)),
        "affinity": _listed(cpus),
        "emulated": emulated,
    }
    if mine and mine[-1].governor is not None:
        stable["governor"] = mine[-1].governor
    if model := hardware_name(sensors):
        stable["hardware"] = model
    volatile: dict[str, machine.Fact] = {"boot_id": sensors.boot_id(), **sensors.readings(cpus)}
    return {"stable": stable, "volatile": volatile}


def hardware_name(sensors: Sensors) -> str | None:
    """Return the board's or phone's name, or that of its cores; None where only /proc/cpuinfo has it."""
    cores = [c.core for c in sensors.clusters() if c.core]
    return sensors.model() or android_model() or (" + ".join(cores) or None)


def android_model() -> str | None:
    """Return a phone's name and chip; None where this is no Android."""
    program = shutil.which("getprop")
    if program is None:
        return None
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model")
    found = [
        subprocess.run([program, n], capture_output=True, text=True, timeout=10, check=False).stdout
        for n in names
    ]
    return " ".join(filter(None, map(str.strip, found))) or None


class BoardAdapter(AdapterAround):
    """An adapter whose device is the board it runs on, not the host that asks."""

    def __init__(
        self,
        inner: DeviceAdapter,
        conditions: Conditions,
        load: SustainedLoad,
        models: ModelFolder,
        facts: Mapping[str, Mapping[str, machine.Fact]],
    ) -> None:
        super().__init__(inner)
        self._conditions, self._load = conditions, load
        self._models, self._facts = models, facts

    def fingerprint(self) -> Fingerprint:
        """Return the adapter's facts and the board's."""
        found = self._inner.fingerprint()
        facts = self._facts["stable"]
        device = f"{found.stable['device']}@{facts['link']}"
        if facts["emulated"]:
            device = f"{device} {EMULATED_MARK}"
        return Fingerprint(
            stable={**found.stable, **facts, "device": device},
            volatile={**found.volatile, **self._facts["volatile"]},
        )

    def supports(self, workload: Workload) -> Support:
        """Say whether the adapter takes the workload."""
        return self._inner.supports(self._placed(workload))

    def compile(self, workload: Workload, plan: MeasurePlan) -> BoardExecutable:
        """Build and load the workload here."""
        inner = self._inner.compile(self._placed(workload), plan)
        return BoardExecutable(inner, self._conditions, self._load, plan.sustained_s)

    def disturbance(self) -> Disturbance:
        """Return what disturbed the last burst, as this board saw it.

        An adapter that knows its own device better than the board's CPU does is believed.
        """
        seen = self._conditions.last
        if isinstance(self._inner, ReportsDisturbance):
            known = self._inner.disturbance()
            return replace(known, readings={**seen.readings, **known.readings})
        return seen

    def _placed(self, workload: Workload) -> Workload:
        """Return the workload with the path its model has here: only its name came over."""
        if workload.path is None:
            return workload
        return replace(workload, path=str(self._models.path(workload.path)))


class BoardExecutable:
    """A workload whose bursts are watched.

    Args:
        inner: the workload as the adapter holds it.
        conditions: watch each burst.
        load: how long the device has been under load.
        sustained_s: for how long it must have been before a burst counts.
    """

    def __init__(
        self, inner: Executable, conditions: Conditions, load: SustainedLoad, sustained_s: float
    ) -> None:
        self._inner, self._conditions = inner, conditions
        self._load, self._sustained_s = load, sustained_s

    @property
    def loaded(self) -> Loaded:
        """Load time, artifact size, memory."""
        return self._inner.loaded

    def check(self, reference: Sequence[Any] | None = None) -> Check:
        """Run once on the seeded inputs."""
        return self._inner.check(reference)

    def outputs(self, inputs: Mapping[str, Any] | None = None) -> list[Any]:
        """Run once and return the outputs."""
        return self._inner.outputs(inputs)

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Let the device cool, or heat it for as long as asked; then time calls back to back."""
        hot = self._sustained_s > 0.0
        while hot and self._load.lasted_s() < self._sustained_s:
            self._load.run(lambda step_s: self._inner.burst(step_s, 1, cache))
        self._conditions.before(hot=hot)
        began_s = time.monotonic()
        burst = self._inner.burst(duration_s, min_calls, cache)
        self._conditions.after()
        if hot:
            self._load.add(began_s)
        return burst

    def trace(self) -> OpTrace:
        """Time the operators in a separate run."""
        return self._inner.trace()

    def close(self) -> None:
        """Free what the workload holds."""
        self._inner.close()
