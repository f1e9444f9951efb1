"""Results as the terminal shows them: strings, or renderables of rich.

Every piece of text from outside is a :class:`rich.text.Text`, never markup, so that a message
such as ``pip install 'hwprof[search]'`` is shown as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hwprof.interval import Interval
from hwprof.measure.records import Measurement
from hwprof.reports.batch_text import gpu_times
from hwprof.reports.fronts import strategy_name, unit_texts
from hwprof.reports.sentences import EMULATED, VERDICT_MEANINGS, target_sentence
from hwprof.reports.views import (
    HeatMap,
    drop_words,
    effects_of_kind,
    heat_map,
    is_emulated,
    kept_rows,
    short_block,
    slot_label,
)
from hwprof.results import Effect, Metric, SearchResult
from hwprof.space import Architecture
from hwprof.space.reduction import Reduction
from hwprof.units import (
    NOTHING,
    fixed,
    format_bytes,
    format_count,
    format_duration,
    format_interval,
    format_pct,
    format_points,
    format_seconds,
    format_share,
    only_ranked,
)

Row = Mapping[str, Any]


def devices_table(rows: Sequence[Row]) -> RenderableType:
    """Show the devices (rows of ``hwprof devices --json``), and why some cannot be used."""
    table = _table("device", "usable", "runtime", "what it is, or what is missing")
    lacks: dict[str, str] = {}
    for row in rows:
        runtime = " ".join(str(p) for p in (row["runtime"], row["runtime_version"]) if p)
        if row["available"]:
            words = row["hardware"] or ""
        else:
            first = lacks.setdefault(row["reason"], row["name"])
            words = row["reason"] if first == row["name"] else f"as for {first}"
        _add(table, row["name"], "yes" if row["available"] else "no", runtime, words)
    return table


def board_text(row: Row) -> RenderableType:
    """Show what is on another machine (``hwprof devices check --json``)."""
    battery = row["battery"]
    clocks = [f"cpu{c} {mhz:.0f} MHz" for c, mhz in row["frequencies_mhz"].items()]
    degrees = row["temperature_c"]
    load = row["foreign_cores"]
    lines = {
        "address": row["url"],
        "device": f"{row['hardware']} ({row['machine']})",
        "emulated": "yes: its times say nothing about hardware" if row["emulated"] else "",
        "system": f"{row['os']}, kernel {row['kernel']}",
        "cores": "; ".join(row["clusters"]),
        "clocks now": ", ".join(clocks) or "not told",
        "governor": ", ".join(row["governors"]) or "not told",
        "temperature": "not told" if degrees is None else f"{degrees:.1f} °C",
        "throttled": "yes: let it cool" if row["throttled"] else "no",
        "battery": f"{battery['battery_pct']:.0f} %" if battery else "",
        "busy with others": "not told" if load is None else f"{load:.1f} cores",
        "memory free": _gib(row["free_memory_bytes"]),
        "space free": _gib(row["free_space_bytes"]),
        "python": row["python"],
        "runtimes": ", ".join(f"{n} {v}" for n, v in row["runtimes"].items()) or "none",
    }
    return _labelled(None, [(name, words) for name, words in lines.items() if words])


def _gib(n_bytes: int | None) -> str:
    return "not told" if n_bytes is None else f"{n_bytes / 2**30:.1f} GiB"


def spaces_table(rows: Sequence[Row]) -> RenderableType:
    """Show every design space (rows of ``hwprof spaces --json``) in one line."""
    table = _table("space", ">px", ">units", ">slots", ">blocks", ">encodings", ">distinct")
    for row in rows:
        layers = [layer for unit in row["units"] for layer in unit["layers"]]
        counts = sorted({len(layer) for layer in layers})
        span = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        _add(
            table,
            row["space"],
            row["resolution_px"],
            len(row["units"]),
            len(layers),
            span,
            format_count(row["n_encodings"]),
            format_count(row["n_distinct"]),
        )
    return table


def space_detail(row: Row) -> RenderableType:
    """Show one design space: its units, their depths, and the candidates of every layer."""
    distinct = row["n_distinct"]
    head = (
        f"{row['space']} at {row['resolution_px']} px, {row['n_classes']} classes: "
        f"{format_count(row['n_encodings'])} architectures"
    )
    if distinct is not None and distinct != row["n_encodings"]:
        head += f", {format_count(distinct)} of them distinct"
    table = _table("place", "depths", "candidates")
    for unit in row["units"]:
        depths = ", ".join(map(str, unit["depths"]))
        layers = unit["layers"]
        if all(layer == layers[0] for layer in layers):
            _add(table, f"unit {unit['unit']}", depths, ", ".join(layers[0]))
            continue
        for index, layer in enumerate(layers):
            _add(table, f"unit {unit['unit']}, layer {index}", depths, ", ".join(layer))
    factors = [f"{name}: {', '.join(map(str, levels))}" for name, levels in row["factors"].items()]
    return Group(Text(head), table, *(Text(f"also {factor}") for factor in factors))


def cost_text(name: str, row: Row) -> str:
    """Say what a network costs (the row of ``hwprof cost --json``)."""
    return (
        f"{name}: {format_count(row['macs'])} MACs ({row['macs']:,}), "
        f"{format_count(row['params'])} parameters ({row['params']:,})"
    )


def measurement_text(measurement: Measurement) -> RenderableType:
    """Show a measurement: the level with its interval first, then what to think of it."""
    m = measurement
    level = Interval(m.level_s, *m.ci95_s)
    stable = m.fingerprint.stable
    setting = (
        f"{stable.get('device')}: {stable.get('hardware')}, {stable.get('runtime')} "
        f"{stable.get('runtime_version')}, {stable.get('threads')} thread(s), "
        f"batch {stable.get('batch')}, {stable.get('precision')}"
    )
    rows: list[tuple[str, str]] = [
        ("level", f"{format_interval(level)}  (95 % interval)"),
        ("verdict", f"{m.verdict}: {VERDICT_MEANINGS[m.verdict]}"),
        *(("", line) for line in m.evidence),
        ("median, p90, p99", ", ".join(format_seconds(v) for v in (m.median_s, m.p90_s, m.p99_s))),
        ("samples", f"{m.n_samples} in {len({b.worker for b in m.bursts})} processes"),
        ("load time", format_seconds(m.loaded.load_s)),
        ("size on disk", format_bytes(m.loaded.artifact_bytes)),
        ("peak memory", format_bytes(m.loaded.peak_memory_bytes)),
        *(("", line) for line in m.loaded.warnings),
        *gpu_times(m.telemetry),
        ("device", setting),
        ("ran on", str(m.telemetry.get("provider", NOTHING))),
    ]
    return _labelled(Text(m.workload.label, style="bold"), rows, m.fingerprint.to_json())


def profile_text(row: Row) -> RenderableType:
    """Show what ``hwprof profile`` did (its JSON)."""
    rows = [
        ("measured", str(row["n_done"])),
        ("failed", str(row["n_failed"])),
        ("left", str(row["n_left"])),
    ]
    held = row.get("holdout")
    if held:
        unseen = (
            f"median error {format_share(held['median_rel_error'], 1)}, "
            f"{format_share(held['within_10pct'])} within 10 %, "
            f"{format_share(held['coverage95'])} inside their 95 % interval "
            f"({held['n']:.0f} networks)"
        )
        rows.append(("predicts unseen", unseen))
        if apart := held["sessions_apart"]:
            rows.append(("sessions", f"{format_share(apart, 1)} apart, which is taken out"))
    if row.get("seconds") is not None:
        rows.append(("took", format_duration(row["seconds"])))
    rows.append(("kept in", str(row["out"])))
    return _labelled(None, rows)


def effects_text(
    effects: Sequence[Effect], insights: Sequence[str], fingerprint: Row
) -> RenderableType:
    """Show block friendliness: what it means, then everywhere, by depth, and by slot."""
    parts = [*_marks(fingerprint), *(Text(f"• {insight}") for insight in insights)]
    for kind, title in (
        ("network", "Used everywhere, against a random mix"),
        ("factor", "Other decisions"),
    ):
        chosen = [e for e in effects if e.kind == kind]
        if chosen:
            parts.append(_effects_table(title, [(str(e.block), e) for e in chosen]))
    depths = effects_of_kind(effects, "depth")
    if depths:
        named = [(f"unit {e.unit}: {e.depth} layers", e) for e in depths]
        parts.append(_effects_table("Reaching a depth", named))
    metrics: tuple[Metric, ...] = ("latency", "accuracy")
    for metric in metrics:
        heat = heat_map(effects, metric)
        if heat is not None:
            parts.append(_heat_table(heat))
    return Group(*parts)


def _effects_table(title: str, effects: Iterable[tuple[str, Effect]]) -> Table:
    table = _table("", ">latency", ">accuracy", title=title)
    for name, effect in effects:
        latency = format_interval(effect.latency, signed=True)
        _add(table, name, latency, format_points(effect.accuracy))
    return table


def _heat_table(heat: HeatMap) -> Table:
    """Show a heat map in words of colour: good is blue, bad is yellow, unsettled is dim."""
    heads = [">" + short_block(b).replace(" ", "\n") for b in heat.blocks]
    title = f"By slot: {heat.metric}, {heat.unit} against the slot's mean (dim: sign not settled)"
    table = _table("slot", *heads, title=title)
    for slot, cells in zip(heat.slots, heat.cells, strict=True):
        texts = [Text(slot_label(slot))]
        for cell in cells:
            if cell is None:
                texts.append(Text(""))
                continue
            style = "dim"
            if cell.excludes_zero:
                style = "bold blue" if heat.goodness(cell) > 0 else "bold yellow"
            texts.append(Text(fixed(cell.value, heat.decimals, signed=True), style=style))
        table.add_row(*texts)
    return table


def predictions_table(rows: Sequence[Row]) -> RenderableType:
    """Show predicted latencies (rows of ``hwprof predict --json``)."""
    table = _table(">latency", "95 % interval", "network")
    for row in rows:
        interval = f"{format_seconds(row['lo_s'])} to {format_seconds(row['hi_s'])}"
        arch = Architecture.from_json(row["arch"])
        _add(table, format_seconds(row["latency_s"]), interval, str(arch))
    return table


def reduction_text(reduction: Reduction) -> RenderableType:
    """Show what was dropped, why, and what remains."""
    parts = _marks(reduction.fingerprint)
    if reduction.drops:
        table = _table("dropped", "rule", ">saves", ">costs", title="Dropped")
        for drop in reduction.drops:
            costs = format_points(drop.accuracy_pct, signed=False)
            _add(table, drop_words(drop), drop.rule, format_interval(drop.latency_s), costs)
        parts.append(table)
        parts += [Text(f"• {drop_words(d)}: {d.why}") for d in reduction.drops if d.why]
    else:
        parts.append(Text("Nothing was dropped: no block and no depth met a rule."))
    kept = _table("where", ">blocks", "which", title="What remains")
    for remaining in kept_rows(reduction):
        names = ", ".join(short_block(b) for b in remaining.blocks)
        _add(kept, remaining.where, len(remaining.blocks), names)
    return Group(*parts, kept, *(Text(note) for note in reduction.notes))


FIGURES = {
    "n_networks": "random networks",
    "mean_pct": "their mean accuracy",
    "sd_pct": "their sd",
    "min_pct": "least accurate",
    "max_pct": "most accurate",
    "smallest_network_pct": "fewest MACs",
    "largest_network_pct": "most MACs",
    "validation_pct": "validation accuracy",
    "test_pct": "test accuracy",
}
"""What the accuracies of :class:`hwprof.search.learning.training.TrainSummary` are called."""


def training_text(row: Row) -> RenderableType:
    """Show what ``hwprof train`` did (its JSON), figure by figure."""
    rows = []
    for name, value in row.items():
        label = FIGURES.get(name) or name.removesuffix("_pct").removesuffix("_s").replace("_", " ")
        if isinstance(value, float):
            value = format_pct(value) if name.endswith("_pct") else _number(name, value)
        rows.append((label, NOTHING if value is None else str(value)))
    return _labelled(None, rows)


def _number(name: str, value: float) -> str:
    return format_duration(value) if name.endswith(("_s", "seconds")) else f"{value:.4g}"


def front_text(result: SearchResult) -> RenderableType:
    """Show a search's front, fastest first, and whether it was measured."""
    how = "measured on the device" if result.confirmed else "predicted, not confirmed by measuring"
    where = f" on {result.device}" if result.device else ""
    space = f"{result.space} (reduced)" if result.reduced else result.space
    head = f"{strategy_name(result.strategy)} in {space}{where}; latencies are {how}"
    ranked = only_ranked(t.accuracy_source for t in result.front)
    heads = [
        ">percentile" if ranked else ">accuracy",
        ">latency",
        *([">predicted"] if result.confirmed else []),
    ]
    table = _table(">#", *heads, ">MACs", ">params", "network")
    for number, trial in enumerate(sorted(result.front, key=lambda t: t.latency_s), start=1):
        cells = [str(number), format_pct(trial.accuracy_pct), format_seconds(trial.latency_s)]
        if result.confirmed:
            cells.append(format_seconds(trial.predicted_s))
        network = " | ".join(text for _, text in unit_texts(trial.arch))
        _add(table, *cells, format_count(trial.macs), format_count(trial.params), network)
    spent = ", ".join(_spent(name, value) for name, value in result.ledger.items() if value)
    targets = [Text(target_sentence(outcome)) for outcome in result.targets]
    head_lines = (*_marks(result.fingerprint), Text(head))
    return Group(*head_lines, table, *targets, Text(f"spent: {spent}"))


def retimed_text(row: Row) -> RenderableType:
    """Show what ``hwprof retime`` timed, fastest first, and what it could not (its JSON)."""
    table = _table(">latency", "verdict", "network")
    rows = sorted(row["networks"], key=lambda r: (r["level_s"] is None, r["level_s"] or 0.0))
    for found in rows:
        level = Interval(found["level_s"], *found["ci95_s"]) if found["ci95_s"] else None
        network = " | ".join(t for _, t in unit_texts(Architecture.from_json(found["arch"])))
        _add(table, format_interval(level), found["verdict"] or found["failure"], network)
    n_done = row["n_done"]
    what = "network" if n_done == 1 else "networks"
    head = f"{n_done} {what} timed on {row['device']}, {row['n_failed']} failed"
    kept = Text(f"kept in {row['out']}, for hwprof report")
    return Group(*_marks(row["fingerprint"]), Text(head), table, kept)


def _spent(name: str, value: float) -> str:
    words = name.removesuffix("_s").replace("_", " ")
    return f"{words} {format_duration(value) if name.endswith('_s') else f'{value:g}'}"


def quickstart_text(row: Row) -> RenderableType:
    """Show what ``hwprof quickstart`` found and where the page is (its JSON)."""
    rows = [("networks measured", str(row["n_networks"])), ("dropped", str(row["n_drops"]))]
    held = row.get("holdout")
    if held:
        rows.append(("median prediction error", format_share(held["median_rel_error"], 1)))
    rows += [(f"hypervolume {k}", f"{v * 1e3:.4g} ms·pp") for k, v in row["hypervolume"].items()]
    rows += [(stage, format_duration(v)) for stage, v in row["seconds"].items()]
    rows.append(("open", str(row["page"])))
    return _labelled(None, rows)


def _table(*heads: str, title: str | None = None) -> Table:
    """Make a table; a head that begins with ``>`` is a column of numbers."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        pad_edge=False,
    )
    for head in heads:
        if head.startswith(">"):
            table.add_column(Text(head[1:]), justify="right")
        else:
            table.add_column(Text(head), overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(Text(str(cell)) for cell in cells))


def _labelled(
    title: Text | None, rows: Iterable[tuple[str, str]], fingerprint: Row | None = None
) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for label, value in rows:
        _add(grid, label, value)
    head = [title] if title is not None else []
    return Group(*head, *_marks(fingerprint), Padding(grid, (0, 0, 0, 2 if title else 0)))


def _marks(fingerprint: Row | None) -> list[RenderableType]:
    """Return what stands first where an emulator played the device."""
    is_marked = fingerprint is not None and is_emulated(fingerprint)
    return [Text(EMULATED, style="bold")] if is_marked else []
