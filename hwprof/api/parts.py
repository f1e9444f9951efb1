"""``bench --parts``: which part of a model is slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hwprof.api.models import as_workload, check_inputs, raise_failure, require_batch
from hwprof.api.tables import Table
from hwprof.errors import PlanError
from hwprof.measure.records import Cache, DeviceOptions, Precision, plan_for
from hwprof.parts.assembly import assemble, is_same_machine, layout_s, written_nodes
from hwprof.parts.comparison import compare_parts, comparison
from hwprof.parts.cuts import parts_up_to
from hwprof.parts.prefixes import PrefixCost, prefix_costs, prefixes
from hwprof.parts.records import PartsResult
from hwprof.parts.tracing import trace_workloads
from hwprof.progress import ProgressCallback
from hwprof.space import Architecture
from hwprof.workload import InputSpec, distinct

MOST_REPEATS = 2
"""How often tracing and measuring are repeated where the machine changed between the two."""


def bench_parts(
    model: Architecture | str | Path,
    *,
    device: str = "cpu",
    inputs: Sequence[InputSpec | str] = (),
    preset: str = "standard",
    cache: Cache = "hot",
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    seed: int = 0,
    isolated: bool = False,
    cuts: Sequence[str] = (),
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> PartsResult:
    """Return where the time of a model goes, and whether the parts add up to the whole.

    Args:
        model: as in :func:`hwprof.bench`, and so are the arguments not named here.
        device: one with an operator trace.
        inputs: shapes and types of a user model's inputs.
        preset: how the whole is measured; as many processes are traced.
        cache: ``hot``; a trace knows no other.
        threads: threads of the runtime.
        batch: batch size of networks of a space.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        seed: of random inputs, weights and the order of bursts.
        isolated: for a network of a space, also measure every block alone and, where the layer
            is optional, the network without it.
        cuts: tensors of the model at which parts end, by name; by default its own structure
            says what a part is.
        script: steers the ``null`` device only.
        progress: called with a progress record as measuring goes on.

    Raises:
        DeviceError: the device is not there, has no operator trace, or gave no number.
        PlanError: caches are to be cold, ``isolated`` is asked of a user's own model or with
            ``cuts``, or a tensor is not there.
    """
    from hwprof.devices import device_ref
    from hwprof.measure.engine import measure
    from hwprof.store.session_file import SessionFile

    if cache != "hot":
        raise PlanError("parts are traced with hot caches only: leave out --cache cold")
    if cuts and isolated:
        raise PlanError("only parts that are blocks can be timed alone: give --isolated or --cut")
    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    ref, plan = device_ref(device, options), plan_for(preset, timeout_s=timeout_s, seed=seed)
    whole = as_workload(model, inputs, seed=seed)
    require_batch(whole, batch)
    check_inputs(inputs, whole)
    if cuts:  # a name that is not there is told before minutes are spent
        parts_up_to(written_nodes(whole), cuts)
    beside = comparison(whole) if isolated else None
    alone = distinct(beside.alone.values()) if beside else []
    # First the trace: a device without one says so before minutes are spent.
    traces, *traces_alone = trace_workloads([whole, *alone], ref, plan, progress)
    workloads = [whole, *(beside.workloads if beside else ())]
    history = SessionFile()
    timed = measure(workloads, ref, plan, history=history, progress=progress)
    results = {r.workload.key: r for r in timed}
    level = raise_failure(results[whole.key])
    for attempt in range(1, 1 + MOST_REPEATS):
        if is_same_machine(level, traces):
            break
        traces += trace_workloads([whole], ref, plan, progress)[0]
        again = replace(plan, seed=seed + attempt)
        (result,) = measure([whole], ref, again, history=history, progress=progress)
        # What disturbs only adds, so the lower of two levels is the nearer to the floor.
        level = min(level, raise_failure(result), key=lambda m: m.level_s)
    found = assemble(level, traces, cuts)
    if beside is None:
        return found
    layouts_s = {w.key: layout_s(w, t) for w, t in zip(alone, traces_alone, strict=True)}
    return compare_parts(found, beside, results, layouts_s)


def bench_prefixes(
    model: Architecture | str,
    *,
    device: str = "cpu",
    preset: str = "standard",
    cache: Cache = "hot",
    threads: int = 1,
    batch: int = 1,
    precision: Precision = "fp32",
    timeout_s: float = 120.0,
    seed: int = 0,
    script: str | None = None,
    progress: ProgressCallback | None = None,
) -> Table[PrefixCost]:
    """Return what every block of a network adds to it, on any device: by growing prefixes.

    Args:
        model: a network of a space; the arguments are those of :func:`hwprof.bench`.
        device: any device; no operator trace is needed.
        preset: how each prefix is measured.
        cache: ``hot`` or ``cold``.
        threads: threads of the runtime.
        batch: batch size.
        precision: arithmetic type.
        timeout_s: longest a single step may take before it is ended.
        seed: of random inputs, weights and the order of bursts.
        script: steers the ``null`` device only.
        progress: called with a progress record as measuring goes on.

    Raises:
        DeviceError: the device is not there, or gave no number for a prefix.
        PlanError: the model is not a network of a space.
    """
    from hwprof.devices import device_ref
    from hwprof.measure.engine import measure
    from hwprof.store.session_file import SessionFile

    options = DeviceOptions(threads=threads, batch=batch, precision=precision, script=script)
    plan = plan_for(preset, cache=cache, timeout_s=timeout_s, seed=seed)
    cuts = prefixes(as_workload(model, seed=seed))
    workloads = [cut.workload for cut in cuts]
    ref = device_ref(device, options)
    results = measure(workloads, ref, plan, history=SessionFile(), progress=progress)
    return Table(prefix_costs(cuts, {r.workload.key: raise_failure(r) for r in results}))
