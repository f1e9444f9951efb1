"""Rows → CSV: full precision, SI units in the column names, one header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from hwprof.interval import Interval
from hwprof.reports.contexts import context_rows, prediction_rows
from hwprof.reports.fronts import comparison_rows, front_points
from hwprof.reports.places import columns, crossed
from hwprof.reports.views import ReportData, drop_words

TABLE_NAMES = (
    "effects",
    "devices",
    "device_correlations",
    "device_flips",
    "isolated_vs_context",
    "predictions",
    "drops",
    "front",
    "places",
    "matrix",
    "comparison",
    "verdicts",
    "failures",
    "machine",
)

Row = Mapping[str, Any]


def csv_tables(data: ReportData) -> dict[str, str]:
    """Return name → CSV text of every table that has rows."""
    tables: dict[str, list[Row]] = {
        "effects": [e.to_row() for e in data.effects],
        **_devices(data),
        "isolated_vs_context": block_costs(data),
        "predictions": [
            {
                "source": r.source,
                "predicted_s": r.predicted_s,
                "half_width_s": r.half_width_s,
                "measured_s": r.measured_s,
            }
            for r in prediction_rows(data)
        ],
        "drops": _drops(data),
        "front": [p.to_row() for p in front_points(data)],
        "places": _places(data),
        "matrix": _matrix(data),
        "comparison": _comparison(data),
        "verdicts": [
            {"verdict": v.verdict, "n": v.n, "evidence": "; ".join(v.evidence)}
            for v in data.verdicts
        ],
        "failures": [f.to_json() for f in data.campaign.failures],
        "machine": _machine(data),
    }
    mark: Row = {"emulated": True} if data.emulated else {}
    return {
        name: _csv([{**row, **mark} for row in tables[name]])
        for name in TABLE_NAMES
        if tables[name]
    }


def _devices(data: ReportData) -> dict[str, list[Row]]:
    compared = data.devices.to_json() if data.devices else {}
    flips = [
        {
            **{k: v for k, v in row.items() if k not in ("slower_s", "faster_s")},
            **_columns("slower", "s", Interval(*row["slower_s"])),
            **_columns("faster", "s", Interval(*row["faster_s"])),
        }
        for row in compared.get("flips", ())
    ]
    return {
        "devices": list(compared.get("effects", ())),
        "device_correlations": list(compared.get("correlations", ())),
        "device_flips": flips,
    }


def block_costs(data: ReportData) -> list[Row]:
    """Return every block's cost alone and in context with the gap, both centred on the slot.

    A block that has no other to be compared with at its slot has no centred costs. Beside them
    the costs as they are: alone hot and cold, differential, and in context where the layer may be
    absent (elsewhere whole networks reveal only differences).
    """
    centred = {(r.slot, r.block): r for r in context_rows(data.isolated, data.effects)}
    return [
        {
            "unit": b.slot.unit,
            "layer": b.slot.layer,
            "block": b.block,
            **_columns("isolated", "s", r.isolated if r else None),
            **_columns("in_context", "s", r.in_context if r else None),
            "gap_s": r.gap_s if r else None,
            "disagrees": r.disagrees if r else None,
            **_columns("isolated_hot", "s", b.isolated_hot_s),
            **_columns("isolated_cold", "s", b.isolated_cold_s),
            **_columns("differential", "s", b.differential_s),
            "regressed_s": b.regressed_s,
        }
        for b in sorted(data.isolated, key=lambda b: b.slot)
        for r in [centred.get((b.slot, b.block))]
    ]


def _machine(data: ReportData) -> list[Row]:
    groups = (("stable", data.fingerprint.stable), ("volatile", data.fingerprint.volatile))
    return [
        {"kind": kind, "fact": name, "value": value}
        for kind, facts in groups
        for name, value in facts.items()
    ]


def _places(data: ReportData) -> list[Row]:
    return [
        {"place": place.label, "digest": place.digest, "fact": name, "value": value}
        for place in data.places
        for name, value in place.facts.items()
    ]


def _matrix(data: ReportData) -> list[Row]:
    hosts = columns(data.places)
    return [
        {
            "number": row.number,
            "searched_for": row.place.label,
            "searched_for_digest": row.place.digest,
            "accuracy_pct": row.trial.accuracy_pct,
            "accuracy_source": row.trial.accuracy_source,
            "timed_on": host.label,
            "timed_on_digest": host.digest,
            **_columns("latency", "s", timed.level if timed else None),
            "verdict": timed.verdict if timed else None,
            "outcome": outcome,
            "failure": timed.failure if timed else None,
            "arch": row.trial.arch.canonical_json(),
        }
        for row in crossed(data.places)
        for host, (timed, outcome) in zip(hosts, row.cells, strict=True)
    ]


def _drops(data: ReportData) -> list[Row]:
    return [
        {
            "dropped": drop_words(drop),
            "unit": drop.unit,
            "layer": drop.layer,
            "block": drop.block,
            "depth": drop.depth,
            "rule": drop.rule,
            **_columns("latency_saved", "s", drop.latency_s),
            **_columns("accuracy_cost", "pct", drop.accuracy_pct),
            "why": drop.why,
        }
        for drop in (data.reduction.drops if data.reduction else ())
    ]


def _comparison(data: ReportData) -> list[Row]:
    return [
        {
            "strategy": r.strategy,
            "space": "reduced" if r.reduced else "full",
            "n_searches": r.n_searches,
            "n_judged": r.n_judged,
            "n_front": r.n_front,
            "confirmed": r.confirmed,
            "fastest_s": r.fastest_s,
            "most_accurate_pct": r.most_accurate_pct,
            "hypervolume_s_pct": r.hypervolume_s_pct,
            "gain": r.gain,
        }
        for r in comparison_rows(data)
    ]


def _columns(name: str, unit: str, interval: Interval | None) -> dict[str, float | None]:
    return {
        f"{name}_{unit}": interval.value if interval else None,
        f"{name}_lo_{unit}": interval.lo if interval else None,
        f"{name}_hi_{unit}": interval.hi if interval else None,
    }


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
