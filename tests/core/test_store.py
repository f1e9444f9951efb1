"""The run folder keeps what it is given, exactly, and refuses what does not belong to it."""

from __future__ import annotations

import math
import sqlite3
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwprof.errors import IncompatibleRunError, StoreError
from hwprof.isolated import piece_levels
from hwprof.measure.records import (
    PRESETS,
    Burst,
    Failure,
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
)
from hwprof.measure.session_spread import LARGE_BYTES
from hwprof.space import Architecture
from hwprof.space.pieces import SkipPiece
from hwprof.store import ImportedBlock, ImportedNetwork, Run
from hwprof.store.blobs import ENCODING, decode, encode
from hwprof.workload import Workload

REQUEST = {
    "space": "mobile-mini",
    "resolution_px": 32,
    "seed": 0,
    "options": {"threads": 1, "batch": 1},
    "networks": 10,
    "isolated": False,
}
STABLE: dict[str, str | int | float | bool | None] = {
    "device": "null",
    "hardware": "scripted",
    "runtime": "null",
    "runtime_version": "1",
    "threads": 1,
    "batch": 1,
    "precision": "fp32",
}


def arch(block: str = "mbconv_k3_e3") -> Architecture:
    return Architecture(space="mobile-mini", resolution_px=32, units=((block,),))


def burst(round_index: int, worker: str = "w0", n: int = 40, wait: bool = True) -> LabelledBurst:
    rng = np.random.default_rng([round_index, n])
    duration = rng.integers(900_000, 1_500_000, n)
    return LabelledBurst(
        burst=Burst(
            start_ns=7_000_000_000_000 + np.cumsum(duration),
            duration_ns=duration,
            wait_ns=rng.integers(0, 10_000, n) if wait else None,
            calls_per_sample=3,
            involuntary_switches=2,
            page_faults=1,
            cpu_ns=123_456,
            probe_ns=77_000 if wait else None,
        ),
        worker=worker,
        round_index=round_index,
        causes=("first",) if round_index == 0 else (),
        steal_share=0.25,
        foreign_cores=0.5,
    )


def measurement(
    workload: Workload, bursts: tuple[LabelledBurst, ...], runtime_version: str = "1"
) -> Measurement:
    return Measurement(
        workload=workload,
        plan=PRESETS["quick"],
        fingerprint=Fingerprint(
            stable={**STABLE, "runtime_version": runtime_version}, volatile={"load": 0.3}
        ),
        bursts=bursts,
        loaded=Loaded(load_s=0.5, artifact_bytes=99, peak_memory_bytes=None, warnings=("w",)),
        level_s=0.001,
        ci95_s=(0.0009, 0.0012),
        median_s=0.0011,
        p90_s=0.0014,
        p99_s=0.0015,
        verdict="noisy",
        evidence=("interval 15 % wide",),
        telemetry={"steal": [0.0, 0.1], "frequency_mhz": None},
    )


def assert_same_burst(a: LabelledBurst, b: LabelledBurst) -> None:
    for name in ("worker", "round_index", "causes", "steal_share", "foreign_cores"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("start_ns", "duration_ns", "wait_ns"):
        x, y = getattr(a.burst, name), getattr(b.burst, name)
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == np.int64
            np.testing.assert_array_equal(x, y)
    for name in (
        "calls_per_sample",
        "involuntary_switches",
        "page_faults",
        "cpu_ns",
        "probe_ns",
        "n_samples",
    ):
        assert getattr(a.burst, name) == getattr(b.burst, name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


def test_samples_survive_encoding_exactly() -> None:
    extremes = np.array([0, -1, 2**62, -(2**62), 5], dtype=np.int64)
    for values in (extremes, np.empty(0, dtype=np.int64), np.array([3], dtype=np.int64)):
        np.testing.assert_array_equal(decode(encode(values), ENCODING, values.size), values)


@pytest.mark.parametrize(
    ("data", "encoding", "n"),
    [
        (b"junk", ENCODING, 1),
        (encode(np.arange(3)), "other", 3),
        (encode(np.arange(3)), ENCODING, 4),
        (encode(np.arange(3)), ENCODING, 2),
        (encode(np.arange(3))[:-2], ENCODING, 3),
        (encode(np.arange(3)), ENCODING, -2),
    ],
)
def test_damaged_samples_are_no_samples(data: bytes, encoding: str, n: int) -> None:
    with pytest.raises(StoreError):
        decode(data, encoding, n)


def test_a_few_bytes_inflate_to_no_more_than_was_written() -> None:
    data = encode(np.zeros(2**22, dtype=np.int64))
    tracemalloc.start()
    with pytest.raises(StoreError, match="does not hold the 5 raw samples"):
        decode(data, ENCODING, 5)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


def test_a_measurement_comes_back_as_it_was(path: Path) -> None:
    workload = Workload.network(arch())
    bursts = (burst(0), burst(1, "w1", wait=False))
    given = measurement(workload, bursts)
    with Run.create(path, "profile", REQUEST) as run:
        for b in bursts:
            run.burst(workload, b)
        run.done(given)
    with Run.open(path) as run:
        (kept,) = run.measurements()
        assert kept.to_json() == given.to_json()
        assert run.fingerprint.digest == given.fingerprint.digest
        assert run.partial_bursts() == {}
    assert kept.workload == workload
    assert kept.plan == given.plan
    assert kept.loaded == given.loaded
    assert len(kept.bursts) == 2
    for a, b in zip(kept.bursts, bursts, strict=True):
        assert_same_burst(a, b)


def test_bursts_are_read_after_the_run_is_closed(path: Path) -> None:
    workload = Workload.network(arch())
    with Run.create(path, "profile", REQUEST) as run:
        run.done(measurement(workload, (burst(0),)))
        (kept,) = run.measurements()
    assert_same_burst(kept.bursts[0], burst(0))
    with pytest.raises(StoreError, match="is closed"):
        run.measurements()


def test_final_causes_replace_those_of_the_moment(path: Path) -> None:
    workload = Workload.network(arch())
    early, late = burst(1), burst(1)
    relabelled = LabelledBurst(
        burst=early.burst, worker="w0", round_index=1, causes=("slow_clock", "superseded")
    )
    with Run.create(path, "profile", REQUEST) as run:
        run.burst(workload, early)
        run.burst(workload, late)
        run.done(measurement(workload, (relabelled, late)))
        (kept,) = run.measurements()
        assert [b.causes for b in kept.bursts] == [("slow_clock", "superseded"), ()]
    with closing(sqlite3.connect(path / "run.db")) as db:
        n_rows = db.execute("SELECT count(*) FROM bursts").fetchone()[0]
    assert n_rows == 2, "no burst is kept twice"


def test_unfinished_bursts_and_failures_are_told_apart(path: Path) -> None:
    begun, failing, done = (Workload.network(arch(b)) for b in ("a", "b", "c"))
    hopeless = Failure(workload=failing, stage="compile", kind="refused", message="no", attempts=2)
    passing = Failure(workload=done, stage="burst", kind="died", message="-9", retryable=True)
    with Run.create(path, "profile", REQUEST) as run:
        run.burst(begun, burst(0))
        run.burst(begun, burst(1))
        run.failed(hopeless)
        run.failed(passing)
        assert run.failures() == [hopeless, passing]
        assert run.finished_keys() == {failing.key}
        run.done(measurement(done, (burst(0),)))
        assert run.failures() == [hopeless], "a later measurement settles a failure"
        assert run.finished_keys() == {failing.key, done.key}
        partial = run.partial_bursts()
    assert list(partial) == [begun.key]
    for index, kept in enumerate(partial[begun.key]):
        assert_same_burst(kept, burst(index))


def test_the_references_of_what_is_not_finished_come_back(path: Path) -> None:
    first, second, later = (Workload.network(arch(b)) for b in ("a", "b", "c"))
    with Run.create(path, "profile", REQUEST) as run:
        for member in (first, second):  # a group on one worker, its reference named by the first
            run.burst(member, burst(0))
        run.reference(first, burst(0))
        run.done(measurement(first, (burst(0),)))
        assert [key for key, _ in run.reference_bursts()] == [first.key]
        run.done(measurement(second, (burst(0),)))
        assert run.reference_bursts() == []
    with Run.create_or_resume(path, "profile", REQUEST) as run:
        # Of several threads: the reference has a worker of its own, and labels may come again.
        run.burst(later, burst(0))
        run.reference(later, burst(1, "w1"))
    with Run.create_or_resume(path, "profile", REQUEST) as run:
        ((key, kept),) = run.reference_bursts()
        assert key == later.key
        assert_same_burst(kept, burst(1, "w1"))


def test_what_was_measured_before_sessions_were_known_is_no_better_for_it(path: Path) -> None:
    """Every network's error holds what sessions differ by as far as the run knows by its end."""
    beside = {"beside_ci95_s": [0.0009, 0.0009 * math.exp(0.02)]}
    known_then: tuple[dict[str, float], ...] = (
        {},
        {"session_sd": 0.005},
        {"session_sd": 0.02},
    )
    with Run.create(path, "profile", REQUEST) as run:
        for i, then in enumerate(known_then):
            found = measurement(Workload.network(arch(f"net{i}")), (burst(0),))
            run.done(replace(found, telemetry={**beside, **then}))
        samples = run.networks()
    half = math.hypot(0.01, 1.959963984540054 * 0.02)
    expected = 0.001 * math.sinh(half) / 1.959963984540054
    assert [s.latency_se_s for s in samples] == pytest.approx([expected] * 3)
    assert [s.session_sd for s in samples] == [0.02] * 3


def test_networks_of_one_group_of_workers_share_a_session(path: Path) -> None:
    """A worker that took a dead one's place has not timed those that were done before."""
    groups = ({"w9": 1e-3, "w10": 1e-3}, {"w9": 1e-3, "w10": 1e-3, "w11": 1e-3}, {"w12": 1e-3})
    with Run.create(path, "profile", REQUEST) as run:
        for i, workers in enumerate(groups):
            found = measurement(Workload.network(arch(f"net{i}")), (burst(0),))
            run.done(replace(found, telemetry={"worker_levels_s": workers}))
        assert [s.session for s in run.networks()] == ["w9", "w9", "w12"]


def test_blocks_of_one_group_of_workers_share_a_session(path: Path) -> None:
    """Also where the tenth worker took a dead one's place: w10 comes behind w8, not before it."""
    groups = ({"w8": 1e-3, "w9": 1e-3}, {"w8": 1e-3, "w9": 1e-3, "w10": 1e-3})
    with Run.create(path, "profile", REQUEST) as run:
        for i, workers in enumerate(groups):
            piece = SkipPiece(in_channels=8 + i, size_px=8)
            found = measurement(Workload.block(piece, f"block {i}"), (burst(0),))
            run.done(replace(found, telemetry={"worker_levels_s": workers}))
        assert [one.session for one in piece_levels(run).values()] == ["w8", "w8"]


def test_small_and_large_networks_know_their_own_sessions(path: Path) -> None:
    """Sessions move what fits into a core's caches less than what does not."""
    with Run.create(path, "profile", REQUEST) as run:
        for i, (n_bytes, sd) in enumerate(((LARGE_BYTES, 0.02), (LARGE_BYTES - 1, 0.004))):
            found = measurement(Workload.network(arch(f"net{i}")), (burst(0),))
            loaded = replace(found.loaded, artifact_bytes=n_bytes)
            run.done(replace(found, loaded=loaded, telemetry={"session_sd": sd}))
        assert [s.session_sd for s in run.networks()] == [0.02, 0.004]


def test_networks_join_measured_and_imported(path: Path) -> None:
    block = Workload(role="model", label="m", path="m.onnx", content="0")
    imported = ImportedNetwork(arch=arch("i"), latency_s=0.25, sd_s=0.1, count=4, accuracy_pct=61.0)
    with Run.create(path, "profile", REQUEST) as run:
        run.done(measurement(Workload.network(arch()), (burst(0),)))
        run.done(measurement(block, (burst(0),)))
        run.put_imported(
            [imported],
            [ImportedBlock(resolution_px=32, unit=0, layer=1, block="skip", latency_s=0.0)],
        )
        samples = run.networks()
        assert run.imported_networks() == [imported]
        assert run.imported_blocks(64) == []
        assert [b.block for b in run.imported_blocks()] == ["skip"]
    assert [s.arch for s in samples] == [arch(), arch("i")]
    assert samples[0].latency_s == 0.001
    assert samples[0].latency_se_s == pytest.approx(0.00015 / 1.96, rel=1e-4)
    assert samples[1].latency_se_s == pytest.approx(0.05)
    assert samples[1].session_sd == 0.0
    assert samples[1].accuracy_pct == 61.0


def test_accuracies_are_cached_by_source_also_by_a_reader(path: Path) -> None:
    with Run.create(path, "profile", REQUEST) as run:
        run.put_accuracy("d1", "supernet:a", arch(), 50.0)
        with Run.open(path) as reader:
            assert reader.writable
            reader.put_accuracy("d1", "supernet:a", arch("x"), 51.0)
            reader.put_accuracy("d2", "supernet:b", arch(), 70.0)
            with pytest.raises(StoreError, match="open for reading"):
                reader.burst(Workload.network(arch()), burst(0))
        assert run.accuracies("d1") == {arch().arch_id: 50.0, arch("x").arch_id: 51.0}
        assert run.accuracies("d3") == {}


def test_a_run_goes_on_and_its_counts_grow(path: Path) -> None:
    Run.create(path, "profile", REQUEST).close()
    with Run.create_or_resume(path, "profile", {**REQUEST, "networks": 20, "isolated": True}):
        pass
    with Run.create_or_resume(path, "profile", {**REQUEST, "networks": 5}) as run:
        assert run.request["networks"] == 20
        assert run.request["isolated"] is True
        with closing(sqlite3.connect(path / "run.db")) as db:
            rows = db.execute("SELECT kind FROM events ORDER BY id").fetchall()
        assert [kind for (kind,) in rows] == ["opened", "closed"] * 2 + ["opened"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"space": "proxylessnas"}, 'space "mobile-mini", not "proxylessnas"'),
        ({"seed": 7}, "seed 0, not 7"),
        ({"options": {"threads": 2, "batch": 1}}, "options.threads 1, not 2"),
        ({"design": "pinned"}, 'design null, not "pinned"'),
    ],
)
def test_another_request_is_refused_and_named(
    path: Path, change: dict[str, object], said: str
) -> None:
    Run.create(path, "profile", REQUEST).close()
    with pytest.raises(IncompatibleRunError) as caught:
        Run.create_or_resume(path, "profile", {**REQUEST, **change})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(IncompatibleRunError, match="'profile', not of 'import'"):
        Run.create_or_resume(path, "import", REQUEST)
    with Run.create_or_resume(path, "profile", REQUEST) as run:
        assert dict(run.request) == REQUEST, "a refusal changes nothing and holds no lock"


def test_another_runtime_is_refused_and_named(path: Path) -> None:
    with Run.create(path, "profile", REQUEST) as run:
        run.done(measurement(Workload.network(arch()), (burst(0),)))
        with pytest.raises(IncompatibleRunError, match="runtime_version '1', not '2'"):
            run.done(measurement(Workload.network(arch("x")), (burst(0),), runtime_version="2"))
        assert len(run.measurements()) == 1


def test_create_refuses_a_folder_with_a_run(path: Path) -> None:
    Run.create(path, "profile", REQUEST).close()
    with pytest.raises(StoreError, match="already holds a run"):
        Run.create(path, "profile", REQUEST)


def test_a_folder_with_other_files_may_become_a_run(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "search.json").write_text("{}")
    with Run.create_or_resume(path, "finalists", {"device": "null"}) as run:
        assert run.kind == "finalists"


def test_what_is_no_run_folder_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for wrong in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(StoreError, match="not a run folder"):
            Run.open(wrong)
    with pytest.raises(StoreError, match="cannot use the run folder"):
        Run.create(tmp_path / "file" / "run", "profile", REQUEST)


def test_an_empty_run_has_no_fingerprint(path: Path) -> None:
    with Run.create(path, "profile", REQUEST) as run, pytest.raises(StoreError, match="no measure"):
        _ = run.fingerprint
