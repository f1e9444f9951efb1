"""Effects read back from a table, or brought by a user who measured elsewhere."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import DataError, SpaceError
from hwprof.estimate.design_matrix import DesignMatrix, Term, depth_probability
from hwprof.estimate.responses import Friendliness, Response
from hwprof.interval import NORMAL_975
from hwprof.results import Metric

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from hwprof.space import DesignSpace

    Floats = NDArray[np.float64]

METRICS: tuple[Metric, ...] = ("latency", "accuracy")

INDEPENDENT = (
    "effects come from a table, which holds no covariances: different slots are taken as "
    "independent, the blocks of one slot as tied only by summing to zero"
)
SPREAD = (
    "the table has no effects of single slots on {metric}: each block's was spread evenly over its "
    "slots"
)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One effect of one metric: value and standard deviation."""

    value: float
    sd: float


def friendliness_from_csv(path: str | Path, space: DesignSpace) -> Friendliness:
    """Read effects from the documented columns of ``hwprof effects --csv``.

    The 95 % intervals give standard deviations, as of normal errors. A table holds no
    covariances. Different slots are taken as independent; the blocks of one slot, and the rows
    of kind ``network``, as exchangeable under their sum-to-zero constraint, so any two
    correlate by −1/(K−1), as they do where every block is seen equally often. Without rows of
    kind ``block`` those of kind ``network`` are spread evenly over the slots.

    Args:
        path: the table, ``.csv`` or ``.csv.gz``.
        space: the space it describes.

    Raises:
        DataError: the file cannot be read, or lacks effects of the space.
        SpaceError: it names a block or a depth that the space does not have.
    """
    frame = _read(Path(path))
    design = DesignMatrix(space)
    rows = _rows_by_term(frame, design)
    cells = {metric: _cells(rows, metric) for metric in METRICS}
    if not cells["latency"]:
        raise DataError(f"{str(path)!r} has no latencies; the column latency_s is empty")
    counts = np.array(
        [_count(rows[term]) if term in rows else 0 for term in design.terms], dtype=np.int64
    )
    n_networks = int(counts.max())
    latency = _response(design, cells["latency"], "latency", n_networks)
    accuracy = (
        _response(design, cells["accuracy"], "accuracy", n_networks) if cells["accuracy"] else None
    )
    return Friendliness.of(design, latency, accuracy, counts, _notes(design, cells))


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        # A block's name stays as it is written, also where it looks like a number (3e6).
        frame = pd.read_csv(path, converters={"block": lambda name: name or None})
    # The last two: a .csv.gz that was cut short, or is damaged.
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read the effects {str(path)!r}: {reason}; expected a file that "
            "`hwprof effects --csv` wrote"
        ) from error
    needed = ["kind", "unit", "layer", "depth", "block", "latency_s"]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise DataError(
            f"{str(path)!r} has no column {missing[0]!r}; expected those of hwprof effects --csv"
        )
    _read_numbers(frame, path)
    for name in ("latency_s", "accuracy_pct"):
        stem, unit = name.rsplit("_", 1)
        for column in (name, f"{stem}_lo_{unit}", f"{stem}_hi_{unit}"):
            if column not in frame.columns:
                frame[column] = np.nan
    return frame


def _read_numbers(frame: pd.DataFrame, path: Path) -> None:
    """Turn the columns that hold numbers into numbers, in place.

    Raises:
        DataError: naming line and column of what is none.
    """
    import pandas as pd

    places = ("unit", "layer", "depth")
    measured = tuple(c for c in frame.columns if str(c).endswith(("_s", "_pct")))
    for name in (*places, "n_networks", *measured):
        if name not in frame.columns:
            continue
        numbers = pd.to_numeric(frame[name], errors="coerce")
        wrong = numbers.isna() & frame[name].notna()
        if name in places:
            wrong |= numbers.notna() & (numbers % 1 != 0)
        if wrong.any():
            at = int(wrong.to_numpy().argmax())
            kind = "a whole number" if name in places else "a number"
            raise DataError(
                f"{str(path)!r} line {at + 2}, {name} is {frame[name].iloc[at]!r}; expected {kind}"
            )
        frame[name] = numbers


def _rows_by_term(frame: pd.DataFrame, design: DesignMatrix) -> dict[Term, Any]:
    import pandas as pd

    def whole(value: Any) -> int | None:
        return None if pd.isna(value) else int(value)

    rows: dict[Term, Any] = {}
    for _, row in frame.iterrows():
        block = None if pd.isna(row["block"]) else str(row["block"])
        term = Term(
            kind=row["kind"],
            unit=whole(row["unit"]),
            layer=whole(row["layer"]),
            depth=whole(row["depth"]),
            block=block,
        )
        if term not in design.index:
            raise SpaceError(
                f"the effects name {row['kind']} {term}, which {design.space.name} does not "
                "have; give the space that they were estimated in"
            )
        if term in rows:
            raise DataError(f"the effects hold two rows for {row['kind']} {term}; remove one")
        rows[term] = row
    return rows


def _count(row: Any) -> int:
    value = row.get("n_networks", 0)
    return int(value) if np.isfinite(value) else 0


def _cells(rows: dict[Term, Any], metric: Metric) -> dict[Term, _Cell]:
    """Return the effects on one metric, of the rows that have one."""
    found = {term: _cell(row, term, metric) for term, row in rows.items()}
    return {term: cell for term, cell in found.items() if cell is not None}


def _cell(row: Any, term: Term, metric: Metric) -> _Cell | None:
    name, unit = ("latency", "s") if metric == "latency" else ("accuracy", "pct")
    value, lo, hi = row[f"{name}_{unit}"], row[f"{name}_lo_{unit}"], row[f"{name}_hi_{unit}"]
    if not np.isfinite(value):
        return None
    if not (np.isfinite(lo) and np.isfinite(hi) and lo <= value <= hi):
        raise DataError(
            f"the {metric} of {term} has the interval [{lo}, {hi}] around {value}; expected "
            f"{name}_lo_{unit} <= {name}_{unit} <= {name}_hi_{unit}"
        )
    return _Cell(value=float(value), sd=float(hi - lo) / (2.0 * NORMAL_975))


def _response(
    design: DesignMatrix, cells: dict[Term, _Cell], metric: Metric, n_networks: int
) -> Response:
    """Assemble values and covariance of every term."""
    _require_whole(design, cells, metric)
    size = len(design.terms)
    values, covariance = np.zeros(size), np.zeros((size, size))
    for group in _groups(design):
        members = [t for t in group if t in cells]
        if not members:
            continue
        at = [design.index[t] for t in members]
        values[at] = [cells[t].value for t in members]
        sd = np.array([cells[t].sd for t in members])
        tied = members[0].kind != "depth" and len(members) > 1
        off = -1.0 / (len(members) - 1) if tied else 0.0
        correlation = np.full((len(at), len(at)), off)
        np.fill_diagonal(correlation, 1.0)
        covariance[np.ix_(at, at)] = sd[:, None] * correlation * sd
    link = _link(design, {t.kind for t in cells})
    covariance = link @ covariance @ link.T
    return Response(
        values=link @ values,
        covariance=covariance,
        even_covariance=covariance,
        degrees=float("inf"),
        n_networks=n_networks,
        mean=None,
    )


def _groups(design: DesignMatrix) -> list[list[Term]]:
    """Return the terms that sum to zero together (every depth by itself)."""
    groups: dict[object, list[Term]] = {}
    for term in design.terms:
        key: object = (term.kind, term.unit, term.layer, term.depth)
        if term.kind == "factor" and term.block is not None:
            key = ("factor", term.block.split("=")[0])
        groups.setdefault(key, []).append(term)
    return list(groups.values())


def _require_whole(design: DesignMatrix, cells: dict[Term, _Cell], metric: Metric) -> None:
    """Check that a kind is there for the whole space or not at all."""
    kinds = {t.kind for t in cells}
    if not kinds & {"block", "network"}:
        raise DataError(
            f"the effects hold no {metric} of any block; expected rows of kind block or network"
        )
    missing = [t for t in design.terms if t.kind in kinds and t not in cells]
    if missing:
        raise DataError(
            f"the effects lack the {metric} of {missing[0].kind} {missing[0]} and "
            f"{len(missing) - 1} more; expected every effect of {design.space.name}"
        )


def _link(design: DesignMatrix, kinds: set[str]) -> Floats:
    """Return the linear map that fills in blocks from networks, or networks from blocks."""
    link = np.eye(len(design.terms))
    if {"block", "network"} <= kinds:
        return link
    reach = {
        t: depth_probability(design.space, t.unit, t.layer + 1)
        for t in design.terms
        if t.kind == "block" and t.unit is not None and t.layer is not None
    }
    total: dict[str | None, float] = {}
    for term, share in reach.items():
        total[term.block] = total.get(term.block, 0.0) + share
    for term, share in reach.items():
        here = design.index[term]
        everywhere = design.index[Term(kind="network", block=term.block)]
        if "block" in kinds:
            link[everywhere, here] = share
        else:
            link[here, everywhere] = 1.0 / total[term.block]
    return link


def _notes(design: DesignMatrix, cells: dict[Metric, dict[Term, _Cell]]) -> tuple[str, ...]:
    found = [INDEPENDENT]
    given = {metric: {t.kind for t in own} for metric, own in cells.items() if own}
    if spread := [metric for metric, there in given.items() if "block" not in there]:
        found.append(SPREAD.format(metric=" and ".join(spread)))
    for kind, words in (("depth", "depth"), ("factor", "what else is decided, such as widths")):
        missing = [metric for metric, there in given.items() if kind not in there]
        if missing and any(t.kind == kind for t in design.terms):
            what = " and ".join(missing)
            found.append(f"the table has no effects of {words} on {what}: they are taken as zero")
    return tuple(found)
