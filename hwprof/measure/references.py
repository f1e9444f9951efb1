"""What every session times beside its candidates: a block, and a network where there are networks.

The block opens and closes every round. It tells whether the machine moved within the session, and
from session to session how far they lie apart (:mod:`hwprof.measure.session_spread`). It fits into a
core's own caches and so moves with the clock. A network does not: what neighbours leave of the
shared caches and of the memory's bandwidth moves networks together, and the block far less
(``tests/bench/bench_session_spread.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hwprof.measure.crew import Member, Seat
from hwprof.measure.level import Estimate, estimate, used_bursts
from hwprof.measure.records import Fingerprint, LabelledBurst, MeasurePlan
from hwprof.measure.session_spread import (
    KINDS,
    LARGE_BYTES,
    Kind,
    SessionLevel,
    SessionSpread,
    session_spread,
)
from hwprof.protocols import SessionHistory
from hwprof.space import Architecture
from hwprof.space.pieces import MBConvPiece
from hwprof.workload import Workload

REFERENCE_TREND_P = 0.05
BLOCK = Workload.block(
    MBConvPiece(
        in_channels=24,
        size_px=14,
        out_channels=24,
        kernel=3,
        expand=3,
        stride=1,
        act="relu6",
        squeeze_excite=False,
        shortcut=True,
        bn_eps=1e-5,
    ),
    "reference block",
)
NETWORK = Workload.network(
    Architecture(
        space="ofa-mbv3-w1.0", resolution_px=128, units=(("mbconv_k3_e4", "mbconv_k3_e4"),) * 5
    ),
    "reference network",
)
"""15 MB of weights and few operations, so that it costs little anywhere."""


class References:
    """The references of one group.

    Args:
        candidates: what they stand beside.
        new_seats: returns where the next one runs. With several threads it must be a process
            of its own: two sessions of one process spin against each other.
        plan: of the group.
        threads: of the runtime.
        history: of sessions on this machine, if any is kept.
        earlier: the block's bursts beside earlier sessions of the same candidates.
    """

    def __init__(
        self,
        candidates: Sequence[Workload],
        new_seats: Callable[[], tuple[Seat, ...]],
        plan: MeasurePlan,
        threads: int,
        history: SessionHistory | None,
        earlier: Sequence[LabelledBurst] = (),
    ) -> None:
        kinds: Mapping[Kind, Workload] = {"block": BLOCK}
        if any(w.role != "block" for w in candidates):
            kinds = {**kinds, "network": NETWORK}
        self._by_kind = {
            kind: Member(workload=workload, seats=new_seats(), is_reference=True)
            for kind, workload in kinds.items()
        }
        self._plan, self._threads, self._history = plan, threads, history
        self._earlier = tuple(earlier)
        self._by_kind["block"].next_round = max((b.round_index for b in earlier), default=-1) + 1
        self._found: dict[tuple[frozenset[str], int], Estimate] = {}
        self._spreads: dict[Kind, SessionSpread] = {}

    @property
    def members(self) -> Sequence[Member]:
        """The references, the block first."""
        return tuple(self._by_kind.values())

    @property
    def bursts(self) -> Sequence[LabelledBurst]:
        """The block's, those beside earlier sessions of the candidates included."""
        return (*self._earlier, *self._by_kind["block"].bursts)

    def learn(self, fingerprint: Fingerprint) -> None:
        """Take from the history how far sessions lie apart; a script has none."""
        if self._history is not None and not fingerprint.is_scripted:
            known = self._history.known(fingerprint)
            self._spreads = {kind: session_spread(known, kind) for kind in KINDS}

    def remember(self, fingerprint: Fingerprint) -> None:
        """Let the history know what the references took in this session."""
        if self._history is None or fingerprint.is_scripted:
            return
        setting = f"{fingerprint.digest} {self._plan.cache} {self._plan.sustained_s:g}"
        for kind, member in self._by_kind.items():
            if used_bursts(member.bursts):
                found = estimate(member.bursts, self._threads)
                self._history.add(
                    fingerprint,
                    SessionLevel(
                        kind=kind, setting=setting, level_s=found.level_s, se=found.within.se
                    ),
                )

    def telemetry(self, member: Member) -> dict[str, Any]:
        """Return what they say of a candidate's session.

        Level and drift of the block, over the candidate's sessions, and, where there is a history,
        how far sessions lie apart for work of the candidate's kind.
        """
        assert member.loaded is not None
        said: dict[str, Any] = {}
        if (found := self._block(member)) is not None:
            drift = found.trend.drift if found.trend.p < REFERENCE_TREND_P else 0.0
            said |= {"reference_level_s": found.level_s, "reference_drift": drift}
        kind: Kind = "network" if member.loaded.artifact_bytes >= LARGE_BYTES else "block"
        if (spread := self._spreads.get(kind)) is not None:
            said |= {"session_sd": spread.sd, "sessions_known": spread.n_known}
        return said

    def _block(self, member: Member) -> Estimate | None:
        """Return what the block's bursts beside the member's sessions say; None without any.

        Many workloads end at one look, and what they share is estimated once. A campaign that was
        interrupted may go on with workloads that were begun and others that were not, in one
        group; with several threads a group is one workload, and the block has other workers.
        """
        workers = frozenset(b.worker for b in member.bursts)
        earlier = [b for b in self._earlier if self._threads > 1 or b.worker in workers]
        bursts = (*earlier, *self._by_kind["block"].bursts)
        if not used_bursts(bursts):
            return None
        shared = frozenset(b.worker for b in earlier), len(bursts)
        if shared not in self._found:
            self._found[shared] = estimate(bursts, self._threads)
        return self._found[shared]
