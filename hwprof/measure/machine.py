"""Facts about the host.

Everything is read from files that need no privilege. What a system does not tell is None,
never a guess.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

Fact = str | int | float | bool | None

MEMORY_KEPT, MEMORY_GIVEN_BACK = "malloc, memory kept", "malloc, system default"
"""How malloc treats large buffers; the words are part of the key of what was measured."""

EQUAL_SPEED = 1.2
"""Cores whose speeds lie further apart than this ratio are of unequal speed."""

_CPU = Path("/sys/devices/system/cpu")
_NODES = Path("/sys/devices/system/node")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_MEMORY_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.high", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit, use, and what of that can be dropped, of control groups of version 2 and of version 1."""


def read_text(path: str | Path) -> str | None:
    """Return a small file's text without surrounding blanks; None where it cannot be read."""
    try:
        # Some are read many times a second while others are timed: no buffer, no text layer.
        with open(path, "rb", buffering=0) as file:
            return file.readall().decode(errors="replace").strip()
    except OSError:
        return None


def parent_pid(pid: int, proc: str | Path = "/proc") -> int | None:
    """Return the parent of a living process; None where there is no such process."""
    fields = stat_fields(pid, proc)
    return int(fields[1]) if fields else None


def stat_fields(pid: int, proc: str | Path = "/proc") -> list[str]:
    """Return the fields of a process's ``stat`` behind its name; none where it is gone."""
    # The name in brackets may itself hold blanks and brackets.
    return (read_text(f"{proc}/{pid}/stat") or "").rpartition(")")[2].split()


@cache
def cpu_model() -> str:
    """Return the CPU's name as the system gives it."""
    info = _cpuinfo()
    for name in ("model name", "Model", "Hardware", "cpu model"):
        if info.get(name):
            return info[name]
    # macOS calls every chip of Apple's "arm" otherwise, and two of them must not pass for one.
    named = _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
    return named or "unknown CPU"


def _sysctl(name: str) -> str | None:
    """Return what macOS says of itself; None elsewhere."""
    if sys.platform == "darwin":
        with suppress(OSError):
            done = subprocess.run(
                ["/usr/sbin/sysctl", "-n", name], capture_output=True, check=False
            )
            return done.stdout.decode(errors="replace").strip() or None
    return None


@cache
def _cpuinfo() -> Mapping[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo."""
    first = (read_text("/proc/cpuinfo") or "").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def usable_cpus() -> frozenset[int]:
    """Return the CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


@cache
def memory_bytes() -> int | None:
    """Return the installed memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def available_memory_bytes(root: Path = _CONTROL_GROUPS, proc: Path = Path("/proc")) -> int | None:
    """Return the memory that can be had without swapping or passing a control group's limit."""
    available = bytes_in(proc / "meminfo", "MemAvailable")
    whole = memory_bytes() if available is None else available
    left = [n for group in _control_groups("memory", root, proc) for n in _memory_left(group)]
    return min([n for n in (whole, *left) if n is not None], default=None)


def _memory_left(folder: Path) -> Iterator[int]:
    """Yield what each limit of a control group leaves; caches that nothing uses give way."""
    for limit_file, used_file, spare in _MEMORY_LIMITS:
        limit, used = read_text(folder / limit_file), read_text(folder / used_file)
        if limit and used and limit != "max":
            lines = (read_text(folder / "memory.stat") or "").splitlines()
            stat = dict(line.split() for line in lines)
            yield max(0, int(limit) - int(used) + int(stat.get(spare, 0)))


def bytes_in(path: str | Path, field: str) -> int | None:
    """Return what a line such as ``MemAvailable:  1024 kB`` of a file says; None without it."""
    for line in (read_text(path) or "").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def oom_kills(proc: Path = Path("/proc")) -> int | None:
    """Return how often the kernel has ended a process for want of memory since boot."""
    for line in (read_text(proc / "vmstat") or "").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return None


@cache
def last_level_cache_bytes() -> int | None:
    """Return the size of the largest cache that the system reports for the first CPU."""
    sizes = [_size(read_text(p)) for p in _CPU.glob("cpu0/cache/index*/size")]
    if "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names:
        sizes += [os.sysconf(n) for n in ("SC_LEVEL3_CACHE_SIZE", "SC_LEVEL2_CACHE_SIZE")]
    return max(sizes, default=0) or None


def _size(text: str | None) -> int:
    """Return the bytes of a size such as ``1024K``."""
    if not text:
        return 0
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1)
    return int(text.rstrip("KMG")) * unit


def cpu_quota(root: Path = _CONTROL_GROUPS, proc: Path = Path("/proc")) -> float | None:
    """Return the cores that control groups grant this process; None where nothing limits it."""
    groups = _control_groups("cpu", root, proc)
    return min((limit for group in groups for limit in _quota_at(group)), default=None)


def _control_groups(controller: str, root: Path, proc: Path) -> Iterator[Path]:
    """Yield the folders of the groups that hold this process, of version 2 and of version 1."""
    for line in (read_text(proc / "self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and controller not in controllers.split(","):
            continue
        relative = path.strip("/")
        for base in ("", "unified") if number == "0" else (controller, controllers):
            for level in (relative, *map(str, Path(relative).parents)):
                yield root / base / level


def _quota_at(folder: Path) -> list[float]:
    """Return the limit of one control group (version 2, else version 1), if it has one."""
    fields = (read_text(folder / "cpu.max") or "").split()
    if not fields:
        quota = read_text(folder / "cpu.cfs_quota_us")
        period = read_text(folder / "cpu.cfs_period_us")
        fields = [quota, period] if quota and period else []
    if len(fields) != 2 or fields[0] in ("max", "-1"):
        return []
    return [int(fields[0]) / int(fields[1])]


def quota_stops(root: Path = _CONTROL_GROUPS, proc: Path = Path("/proc")) -> int | None:
    """Return how often a quota stopped what runs in this process's control groups; None without.

    A group that has spent its quota stands still until the next period, up to 100 ms.
    """
    counts = [
        int(line.split()[1])
        for group in _control_groups("cpu", root, proc)
        if any(_quota_at(group))
        for line in (read_text(group / "cpu.stat") or "").splitlines()
        if line.startswith("nr_throttled ")
    ]
    return sum(counts) if counts else None


def _hypervisor() -> str | None:
    """Return what virtual machine this is; None on bare metal (or where nothing tells)."""
    if "hypervisor" not in _cpuinfo().get("flags", "").split():
        return read_text("/sys/hypervisor/type")
    names = (read_text(f"/sys/class/dmi/id/{n}") for n in ("sys_vendor", "product_name"))
    return " ".join(n for n in names if n) or read_text("/sys/hypervisor/type") or "unnamed"


def _boost() -> bool | None:
    """Return whether the clock may rise above its nominal value."""
    boost = read_text(_CPU / "cpufreq/boost")
    if boost is not None:
        return boost == "1"
    no_turbo = read_text(_CPU / "intel_pstate/no_turbo")
    return None if no_turbo is None else no_turbo == "0"


def _smt() -> bool | None:
    active = read_text(_CPU / "smt/active")
    return None if active is None else active == "1"


@cache
def stable_facts() -> Mapping[str, Fact]:
    """Return what identifies this machine and changes only with a deliberate act."""
    memory = memory_bytes()
    return {
        "hardware": cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cpus()),
        "memory_gib": round(memory / 2**30) if memory else None,
        "os": _os_name(),
        "kernel": platform.release(),
        "hypervisor": _hypervisor(),
        "governor": read_text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "boost": _boost(),
        "smt": _smt(),
        "numa_nodes": len(list(_NODES.glob("node[0-9]*"))) or None,
        **({"power_mode": mode} if (mode := power_mode()) else {}),
    }


def power_mode(root: Path = Path("/")) -> str | None:
    """Return the power mode that the machine was put into; None where it has none.

    Of a Jetson the mode of ``nvpmodel``, which caps clocks and cores behind the governor's back
    (``pmode:0002``; a fan's mode may follow it), of a PC the ACPI platform profile.
    """
    jetson = (read_text(root / "var/lib/nvpmodel/status") or "").split()
    return jetson[0] if jetson else read_text(root / "sys/firmware/acpi/platform_profile")


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.mac_ver()[0]}".strip()


def volatile_facts() -> Mapping[str, Fact]:
    """Return what explains a number without identifying the machine."""
    mhz = _cpuinfo_mhz()
    return {
        "microcode": _cpuinfo().get("microcode"),
        "cpu_mhz": mhz,
        "clocksource": read_text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        "autogroup": _flag("/proc/sys/kernel/sched_autogroup_enabled"),
        "nice": os.nice(0),
        "transparent_huge_pages": _selected("/sys/kernel/mm/transparent_hugepage/enabled"),
        "aslr": _flag("/proc/sys/kernel/randomize_va_space"),
        "load_average": os.getloadavg()[0],
        "cpu_pressure_pct": _cpu_pressure_pct(),
        "affinity": ",".join(map(str, sorted(usable_cpus()))),
        "cpu_quota": cpu_quota(),
    }


def _cpu_pressure_pct(pressure: Path = Path("/proc/pressure/cpu")) -> float | None:
    """Return the share of the last 10 s in which some task waited for a CPU (pressure stall)."""
    for field in (read_text(pressure) or "").split():
        name, _, value = field.partition("=")
        if name == "avg10":
            return float(value)
    return None


def _cpuinfo_mhz() -> float | None:
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        if line.startswith("cpu MHz"):
            return float(line.split(":")[1])
    return None


def _flag(path: str) -> bool | None:
    text = read_text(path)
    return None if text is None else text != "0"


def _selected(path: str) -> str | None:
    """Return the bracketed choice of a line such as ``always [madvise] never``."""
    text = read_text(path)
    return text[text.index("[") + 1 : text.index("]")] if text and "[" in text else text


def thermal_throttle_count(cpu: Path = _CPU) -> int | None:
    """Return how often the cores were throttled since boot (bare-metal x86 only)."""
    counts = [read_text(p) for p in cpu.glob("cpu*/thermal_throttle/core_throttle_count")]
    numbers = [int(c) for c in counts if c]
    return sum(numbers) if numbers else None


def fast_cpus(cpus: frozenset[int], root: Path = _CPU) -> tuple[int, ...]:
    """Return the faster ones of ``cpus``; none where all are of one speed, or nothing tells."""
    speeds = {
        cpu: int(read_text(root / f"cpu{cpu}/cpu_capacity") or "0")
        or int(read_text(root / f"cpu{cpu}/cpufreq/cpuinfo_max_freq") or "0")
        for cpu in cpus
    }
    # Cores of one design differ by a few percent where each has a top clock of its own.
    limit = max(speeds.values()) / EQUAL_SPEED
    fast = sorted(cpu for cpu, speed in speeds.items() if speed >= limit)
    return tuple(fast) if len(fast) < len(cpus) else ()


def warnings() -> tuple[str, ...]:
    """Return what about this machine makes numbers less repeatable, with what would mend it."""
    facts = stable_facts()
    out = []
    governor = facts["governor"]
    if governor not in (None, "performance"):
        out.append(
            f"the CPU governor is {governor!r}: set 'performance' for repeatable clocks "
            "(cpupower frequency-set -g performance)"
        )
    if facts["boost"]:
        out.append(
            "clock boost is on, so the clock depends on temperature and on other cores: switch it "
            "off for repeatable clocks (echo 0 > /sys/devices/system/cpu/cpufreq/boost, or 1 > "
            "/sys/devices/system/cpu/intel_pstate/no_turbo)"
        )
    if fast := fast_cpus(usable_cpus()):
        out.append(
            "the cores differ in speed, and which of them a call meets is left to the system: keep "
            f"to the fast ones (taskset -c {','.join(map(str, fast))} hwprof ...), or to the others"
        )
    if read_text("/proc/stat") is None:
        out.append(
            "this system does not tell what other programs do, nor whether a call waited for a core "
            "(it has no /proc/stat), so neither shows in the verdict: close them while you measure"
        )
    return tuple(out)
