"""What a Linux or Android device says about its cores, clocks, temperature and battery.

Everything is read from files that need no privilege, below ``root`` so that tests can bring a
tree of their own. What a device does not tell is absent, never a guess.

Sources: the kernel's Documentation/admin-guide/pm/cpufreq.rst (kHz), driver-api/thermal/sysfs-api.rst
(millidegrees Celsius), ABI/testing/sysfs-class-power (µA, µV, per cent); bits of ``get_throttled``:
Raspberry Pi documentation of ``vcgencmd get_throttled``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hwprof.measure.machine import read_text, thermal_throttle_count

_THROTTLED_NOW = 0xF
"""Under-voltage, clock capped, throttled, soft temperature limit: now, not since boot."""
_ARM_PARTS = {
    # Arm Limited (implementer 0x41), MIDR_EL1 part numbers, from the cores' reference manuals.
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}
_ARM = 0x41


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Cores of one kind, and how fast they may run."""

    cpus: tuple[int, ...]
    max_khz: int | None = None
    governor: str | None = None
    core: str | None = None
    """The cores' design, e.g. ``Cortex-A72``, where it is known."""

    def __str__(self) -> str:
        clock = "" if self.max_khz is None else f" up to {self.max_khz // 1000} MHz"
        return f"{cpu_list(self.cpus)}: {len(self.cpus)} x {self.core or 'core'}{clock}"


class Sensors:
    """Reads a device.

    Args:
        root: where its file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._cpu = root / "sys/devices/system/cpu"
        zones = self._glob("sys/class/thermal/thermal_zone*")
        self._zones = [zone for zone in zones if _is_cpu(zone)] or zones

    def clusters(self) -> tuple[Cluster, ...]:
        """Return the clusters, the fastest last; one of all cores where nothing tells them apart."""
        cores = self._core_names()
        alike: dict[tuple[int | None, str | None, str | None], list[int]] = {}
        for policy in self._glob("sys/devices/system/cpu/cpufreq/policy*"):
            cpus = parse_cpu_list((read_text(policy / "related_cpus") or "").replace(" ", ","))
            if cpus:  # servers have a policy for every core: those alike are one cluster
                governor = read_text(policy / "scaling_governor")
                kind = (_number(policy / "cpuinfo_max_freq"), governor, cores.get(cpus[0]))
                alike.setdefault(kind, []).extend(cpus)
        found = [
            Cluster(cpus=tuple(sorted(cpus)), max_khz=khz, governor=governor, core=core)
            for (khz, governor, core), cpus in alike.items()
        ]
        if not found:
            cpus = parse_cpu_list(read_text(self._cpu / "online") or "")
            cpus = cpus or tuple(range(os.cpu_count() or 1))
            found = [Cluster(cpus=cpus, core=cores.get(cpus[0]))]
        return tuple(sorted(found, key=lambda c: (c.max_khz or 0, c.cpus)))

    def model(self) -> str | None:
        """Return the board's or phone's name, e.g. ``Raspberry Pi 4 Model B Rev 1.4``."""
        text = read_text(self._root / "proc/device-tree/model")
        return text.strip("\0 ") if text else None

    def temperature_c(self) -> float | None:
        """Return the hottest of the CPU's sensors (of all sensors, where none is the CPU's)."""
        readings = [_number(zone / "temp") for zone in self._zones]
        degrees = [r / 1000.0 for r in readings if r is not None]
        # A sensor that is switched off says 0 or far less.
        return max((d for d in degrees if 0.0 < d < 150.0), default=None)

    def frequencies_khz(self) -> dict[int, int]:
        """Return the present clock of every core that tells it."""
        found = {}
        for path in self._glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"):
            value = _number(path)
            if value:
                found[int(path.parts[-3].removeprefix("cpu"))] = value
        return found

    def is_throttled(self) -> bool:
        """Return whether the device says that it holds its clock down at this moment."""
        # soc:firmware up to the Raspberry Pi 4, soc@107c000000:firmware on the 5.
        for path in self._glob("sys/devices/platform/soc*/soc*:firmware/get_throttled"):
            if (bits := read_text(path)) and int(bits, 16) & _THROTTLED_NOW:
                return True
        for device in self._glob("sys/class/thermal/cooling_device*"):
            kind = (read_text(device / "type") or "").lower()
            if "cpu" in kind and (_number(device / "cur_state") or 0) > 0:
                return True
        return False

    def throttle_count(self) -> int | None:
        """Return how often the cores were throttled since boot; None where that is not counted."""
        return thermal_throttle_count(self._cpu)

    def battery(self) -> dict[str, float]:
        """Return ``battery_pct`` and ``battery_charging`` (1 or 0); empty without a battery."""
        for supply in self._glob("sys/class/power_supply/*"):
            percent = _number(supply / "capacity")
            if percent is not None and read_text(supply / "type") == "Battery":
                charging = read_text(supply / "status") in ("Charging", "Full")
                return {"battery_pct": float(percent), "battery_charging": float(charging)}
        return {}

    def boot_id(self) -> str | None:
        """Return what is drawn anew at every start of the system."""
        return read_text(self._root / "proc/sys/kernel/random/boot_id")

    def readings(self, cpus: frozenset[int]) -> dict[str, float]:
        """Return what is kept with every burst; clocks are those of ``cpus``."""
        found = dict(self.battery())
        if (degrees := self.temperature_c()) is not None:
            found["temperature_c"] = degrees
        clocks = [khz for cpu, khz in self.frequencies_khz().items() if cpu in cpus]
        if clocks:
            found["cpu_mhz"] = max(clocks) / 1000.0
        return found

    def _core_names(self) -> dict[int, str]:
        names = {}
        for paragraph in (read_text(self._root / "proc/cpuinfo") or "").split("\n\n"):
            pairs = (line.split(":", 1) for line in paragraph.splitlines() if ":" in line)
            fields = {name.strip(): value.strip() for name, value in pairs}
            if "processor" in fields and fields.get("CPU implementer") == hex(_ARM):
                part = int(fields.get("CPU part", "0"), 16)
                names[int(fields["processor"])] = _ARM_PARTS.get(part, f"Arm part {part:#x}")
        return names

    def _glob(self, pattern: str) -> list[Path]:
        return sorted(self._root.glob(pattern))


def is_emulated(root: Path = Path("/")) -> bool:
    """Return whether an emulator plays this device, or runs this process.

    Android's emulator shows the pipe to its host. QEMU in user mode shows a guest its own program
    as ``/proc/self/exe``, but does not think of the other name of that link.
    """
    if any(os.path.exists(root / "dev" / name) for name in ("goldfish_pipe", "qemu_pipe")):
        return True
    for name in ("proc/thread-self/exe", f"proc/self/task/{os.getpid()}/exe"):
        try:
            target = os.readlink(root / name)
        except OSError:
            continue
        if os.path.basename(target).startswith("qemu-"):
            return True
    return False


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the CPUs in ``0-3,6``.

    Raises:
        ValueError: it is no such list.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus))


def cpu_list(cpus: tuple[int, ...]) -> str:
    """Return CPUs in the form that :func:`parse_cpu_list` reads."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _is_cpu(zone: Path) -> bool:
    kind = (read_text(zone / "type") or "").lower()
    return any(word in kind for word in ("cpu", "soc", "x86_pkg", "tsens"))


def _number(path: Path) -> int | None:
    text = read_text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None
