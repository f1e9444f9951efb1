"""May the number be trusted? One word, and lines that say why and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwprof.measure.load import FOREIGN_CORES_LIMIT, STEAL_LIMIT, STEAL_WARNING
from hwprof.measure.machine import MEMORY_GIVEN_BACK, MEMORY_KEPT
from hwprof.measure.records import VERDICTS, Verdict
from hwprof.measure.session_spread import FEW_SESSIONS

FULL_CLOCK_SHARE = 0.25
"""The level is the fast end: it stands while a quarter of the bursts ran at full clock."""
THROTTLED_SHARE = 0.1
REFERENCE_DRIFT = 0.015
SIBLING_CORES = 0.05
"""Foreign load from which a busy SMT sibling is worth a remark."""
MOST_NAMED = 4
"""Other processes that a line names."""
LONGER = {"quick": "standard", "standard": "strict"}


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Everything a verdict is made of. Shares are of the bursts that were used."""

    preset: str
    n_workers: int
    n_bursts: int
    n_excluded: int
    rel_half_width: float
    rel_half_width_when_quiet: float
    """What it would be on a machine whose sessions hardly differ."""
    target_rel: float
    session_sd: float
    """What other sessions may differ by, in ln(level)."""
    sessions_known: int | None
    """From how many earlier ones that is known; None where none are kept."""
    confirmed: bool
    is_drifting: bool
    drift: float
    reference_drift: float | None
    throttled_share: float
    full_clock_share: float
    steal_share: float
    foreign_cores: float
    n_cpus: int | None
    faulted_share: float
    over_quota_share: float = 0.0
    """Of bursts in which a control group's CPU quota stopped what runs in it."""
    shared_device_share: float = 0.0
    """Of bursts beside another process on the device."""
    foreign_processes: tuple[str, ...] = ()
    """Those processes, in words."""
    outside_ops: tuple[str, ...] = ()
    smt: bool | None = None
    """Whether hardware threads share a core."""
    allocator: str | None = None
    """How malloc treats large buffers, in the fingerprint's words."""
    host_warnings: tuple[str, ...] = ()


def judge(signs: Signs) -> tuple[Verdict, tuple[str, ...]]:
    """Return the most serious verdict that applies, and the evidence for all that do."""
    found: list[tuple[Verdict, str]] = [("throttled", line) for line in _throttled(signs)]
    found += [("contaminated", line) for line in _contaminated(signs)]
    found += _statistical(signs)
    if found:
        verdict = max((v for v, _ in found), key=VERDICTS.index)
        return verdict, (*(line for _, line in found), *_remarks(signs))
    agreed = (
        f"±{signs.rel_half_width:.1%} by {signs.n_bursts} bursts of {signs.n_workers} workers "
        f"(asked: ±{signs.target_rel:.1%})"
    )
    return "clean", (agreed, *_remarks(signs))


def _throttled(signs: Signs) -> Iterator[str]:
    if signs.throttled_share > THROTTLED_SHARE:
        yield (
            f"the device throttled its clock in {signs.throttled_share:.0%} of the bursts: let it "
            "cool, improve cooling, or lock the clock lower"
        )
    if signs.over_quota_share > THROTTLED_SHARE:
        yield (
            f"the CPU quota of this process's control group was spent in "
            f"{signs.over_quota_share:.0%} of the bursts, so that it stood still: raise the quota "
            "(docker --cpus, Kubernetes limits.cpu) or run nothing else in the container"
        )
    if signs.full_clock_share < FULL_CLOCK_SHARE:
        yield (
            f"only {signs.full_clock_share:.0%} of the bursts ran at the best clock seen in this "
            "run: the processor was throttled or the host shares the core; let it cool or measure when "
            "the host is quieter"
        )


def _contaminated(signs: Signs) -> Iterator[str]:
    if signs.foreign_cores > FOREIGN_CORES_LIMIT:
        of_all = f" of {signs.n_cpus}" if signs.n_cpus else ""
        yield (
            f"other processes kept {signs.foreign_cores:.1f}{of_all} cores busy while this ran: "
            "stop them or measure later"
        )
    if signs.shared_device_share > 0.0:
        named = ", ".join(signs.foreign_processes[:MOST_NAMED])
        n_more = len(signs.foreign_processes) - MOST_NAMED
        more = f" and {n_more} more" if n_more > 0 else ""
        yield (
            f"another process was on the device in {signs.shared_device_share:.0%} of the "
            f"bursts{': ' if named else ''}{named}{more}; end it, or measure when the device is free"
        )
    if signs.steal_share > STEAL_LIMIT:
        yield (
            f"the hypervisor gave {signs.steal_share:.1%} of the CPU time to other machines: "
            "measure at another time or on another instance, best with cores of its own"
        )


def _statistical(signs: Signs) -> Iterator[tuple[Verdict, str]]:
    if signs.is_drifting:
        yield "drifting", _drift_line(signs)
    if not signs.confirmed:
        line = (
            "fewer than 3 bursts of 2 workers reached the floor: the machine may never have been "
            f"undisturbed; {_longer(signs)}"
        )
        yield "unconfirmed", line
    if signs.rel_half_width > signs.target_rel:
        wide = f"±{signs.rel_half_width:.1%}, asked was ±{signs.target_rel:.1%}"
        is_own = signs.rel_half_width_when_quiet > signs.target_rel
        why = _longer(signs) if is_own else _apart(signs)
        yield "noisy", f"the 95 % interval is {wide}: {why}"


def _apart(signs: Signs) -> str:
    """Say that not this session is at fault, but what others differ by."""
    return (
        f"sessions on this machine differ by {signs.session_sd:.1%} (standard deviation, "
        f"{signs.sessions_known} known), as where a host moves the clock; measuring longer does "
        "not change that: hold things side by side (hwprof compare, or one campaign), or use an "
        "instance with cores of its own"
    )


def _longer(signs: Signs) -> str:
    preset = LONGER.get(signs.preset)
    when = "when the machine is quieter"
    return f"measure longer (--preset {preset}) or {when}" if preset else f"measure {when}"


def _drift_line(signs: Signs) -> str:
    line = f"the time per call moved by {signs.drift:+.1%} from first to last round"
    reference = signs.reference_drift
    if reference is None:
        return f"{line}: let the machine settle and measure again"
    if abs(reference) > REFERENCE_DRIFT:
        return (
            f"{line}, and the reference block by {reference:+.1%}: the machine was changing; "
            "let it settle and measure again"
        )
    return (
        f"{line}, while the reference block shows no such trend: it may be the workload itself; "
        "look for what it accumulates, or measure again"
    )


def _remarks(signs: Signs) -> Iterator[str]:
    if signs.n_excluded:
        bursts = "burst was" if signs.n_excluded == 1 else "bursts were"
        yield (
            f"{signs.n_excluded} disturbed {bursts} repeated and left out (kept in the raw data): "
            "nothing to do, unless every run has some; then measure when the machine is quieter"
        )
    if STEAL_WARNING < signs.steal_share <= STEAL_LIMIT:
        yield (
            f"the hypervisor gave {signs.steal_share:.1%} of the CPU time to other machines, which "
            "nothing in this one can stop: for narrower intervals measure at another time or on "
            "another instance, best with cores of its own"
        )
    if signs.smt and signs.foreign_cores > SIBLING_CORES:
        yield (
            f"other processes kept {signs.foreign_cores:.2f} cores busy, and hardware threads share "
            "cores here: work on the sibling slows a call and shows in no counter; stop it, or "
            "switch SMT off"
        )
    if signs.faulted_share > 0.5:
        yield (
            "most calls cause page faults, which are part of the time shown: "
            f"{_against_page_faults(signs.allocator)}"
        )
    if signs.outside_ops:
        yield (
            "the runtime's own kernels ran these operators, which its delegate does not take: "
            f"{counted(signs.outside_ops)}; for speed replace them by operators that it takes, or "
            "give the model in a type in which it takes them"
        )
    if signs.sessions_known is not None and signs.sessions_known < FEW_SESSIONS:
        yield (
            f"fewer than {FEW_SESSIONS} earlier sessions on this machine are known, so that how far "
            "they lie apart is mostly assumed: hwprof learns it as it measures (hwprof selftest takes "
            "several at once)"
        )
    yield from signs.host_warnings


def _against_page_faults(allocator: str | None) -> str:
    """Say what keeps a process from giving memory back between calls, by what was done already."""
    if allocator == MEMORY_KEPT:
        return (
            "malloc keeps its memory here, so the runtime maps memory itself, or another allocator "
            "is preloaded (LD_PRELOAD): switch on the runtime's own arena, or let that allocator "
            "keep memory (jemalloc: MALLOC_CONF=dirty_decay_ms:-1)"
        )
    if allocator == MEMORY_GIVEN_BACK:
        return (
            "malloc gives memory back between calls; with glibc start the process with "
            "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647, here and where the model is used"
        )
    return "let the program keep and reuse its buffers, or take them as part of every call"


def counted(names: Sequence[str]) -> str:
    """Return names in one line, each once, with its number where it occurs more often."""
    return ", ".join(f"{name} (x{n})" if n > 1 else name for name, n in Counter(names).items())
