"""Whether latencies are such as a machine can reach: seconds in a column of milliseconds are not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwprof.importing.tables import LatencyColumns, Table
from hwprof.space import Slot

if TYPE_CHECKING:
    from hwprof.space import DesignSpace
    from hwprof.store import ImportedBlock, ImportedNetwork

LEAST_PACE_S = 0.3e-6
"""Per operator: runtimes on the fastest GPUs take over a microsecond, fused operators included."""
PACE_NETWORKS = 20
"""Networks that the pace is judged by."""


def check_networks(
    table: Table, columns: LatencyColumns, space: DesignSpace, networks: Sequence[ImportedNetwork]
) -> None:
    """Refuse latencies of networks that no machine reaches.

    Raises:
        DataError: the median over networks is below :data:`LEAST_PACE_S` an operator.
    """
    from hwprof.graph import network_graph

    some = networks[:: max(1, len(networks) // PACE_NETWORKS)][:PACE_NETWORKS]
    _require(
        table,
        columns,
        [n.latency_s / len(network_graph(space, n.arch).live_nodes) for n in some],
    )


def check_blocks(
    table: Table, columns: LatencyColumns, space: DesignSpace, blocks: Sequence[ImportedBlock]
) -> None:
    """Refuse latencies of blocks that no machine reaches.

    Raises:
        DataError: the median over blocks is below :data:`LEAST_PACE_S` an operator.
    """
    from hwprof.graph import piece_graph

    operators = space.block_totals(lambda piece: len(piece_graph(piece).live_nodes))
    paces = []
    for block in blocks:
        if block.unit is None or block.layer is None:
            continue
        n = operators.get((Slot(block.unit, block.layer), block.block), 0.0)
        if n > 0.0 and block.latency_s > 0.0:  # what does nothing may cost nothing
            paces.append(block.latency_s / n)
    if paces:
        _require(table, columns, paces)


def _require(table: Table, columns: LatencyColumns, paces_s: Sequence[float]) -> None:
    pace_s = statistics.median(paces_s)
    if pace_s < LEAST_PACE_S:
        raise table.wrong(
            f"has {columns.latency} of {1e9 * pace_s:.2g} ns an operator; expected at least "
            f"{1e9 * LEAST_PACE_S:.0f} ns, which no runtime reaches: are these seconds, in a column "
            "that is named after milliseconds?"
        )
