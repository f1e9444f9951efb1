"""What happens to a run folder when the world is unkind to it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from hwprof.errors import StoreError
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.space import Architecture
from hwprof.store import Run
from hwprof.store.schema import explained
from hwprof.workload import Workload
from tests.made import measurement

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"space": "mobile-mini", "networks": 3}
NOBODY = 65534

WRITER = """
    import sys
    import numpy as np
    from hwprof.measure.records import Burst, LabelledBurst
    from hwprof.space import Architecture
    from hwprof.store import Run
    from hwprof.workload import Workload

    workload = Workload.network(Architecture(space="s", resolution_px=8, units=(("b",),)))
    run = Run.create_or_resume(sys.argv[1], "profile", {"space": "mobile-mini", "networks": 3})
    for index in range(100_000):
        values = np.arange(200, dtype=np.int64) + index
        made = Burst(start_ns=values, duration_ns=values, wait_ns=None)
        run.burst(workload, LabelledBurst(burst=made, worker="w", round_index=index))
        print(index, flush=True)
"""


def workload() -> Workload:
    return Workload.network(Architecture(space="s", resolution_px=8, units=(("b",),)))


def burst(round_index: int, n: int = 200) -> LabelledBurst:
    values = np.arange(n, dtype=np.int64) + round_index
    return LabelledBurst(
        burst=Burst(start_ns=values, duration_ns=values, wait_ns=None),
        worker="w",
        round_index=round_index,
    )


def kill_while_writing(path: Path, after: int) -> int:
    """Kill a writer after it has acknowledged a burst; return the last one acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return int(lines[-1])


def test_another_working_directory_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Run.create_or_resume("run", "profile", REQUEST) as run:
        run.burst(workload(), burst(0))
        monkeypatch.chdir(tmp_path.parent)
        run.burst(workload(), burst(1))
        assert len(run.partial_bursts()[workload().key]) == 2


def test_a_folder_that_is_moved_away_under_a_run_is_missed_at_once(tmp_path: Path) -> None:
    run = Run.create_or_resume(tmp_path / "run", "profile", REQUEST)
    run.burst(workload(), burst(0))
    (tmp_path / "run").rename(tmp_path / "moved")
    for ending in (lambda: run.burst(workload(), burst(1)), run.close):
        with pytest.raises(StoreError, match="was moved or removed while it was written to"):
            ending()
    (tmp_path / "moved").rename(tmp_path / "run")
    with Run.create_or_resume(tmp_path / "run", "profile", REQUEST) as run:
        assert len(run.partial_bursts()[workload().key]) == 1


def test_a_killed_writer_loses_no_acknowledged_burst(tmp_path: Path) -> None:
    path = tmp_path / "run"
    acknowledged = kill_while_writing(path, after=30)
    with Run.open(path) as run:
        kept = run.partial_bursts()[workload().key]
    assert [b.round_index for b in kept] == list(range(len(kept)))
    assert len(kept) in (acknowledged + 1, acknowledged + 2)
    for b in kept:
        np.testing.assert_array_equal(b.burst.duration_ns, np.arange(200) + b.round_index)
    db = sqlite3.connect(path / "run.db")
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert db.execute("SELECT kind FROM events").fetchall() == [("opened",)], "killed, not closed"
    db.close()
    with Run.create_or_resume(path, "profile", REQUEST) as again:
        assert len(again.partial_bursts()[workload().key]) == len(kept)


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Run.create(path, "profile", REQUEST):
        with pytest.raises(StoreError, match="another process is writing"):
            Run.create_or_resume(path, "profile", REQUEST)
        with Run.open(path) as reader:
            assert reader.measurements() == []
    Run.create_or_resume(path, "profile", REQUEST).close()


def test_a_reader_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Run.create(path, "profile", REQUEST) as run, Run.open(path) as reader:
        run.burst(workload(), burst(0))
        assert len(reader.partial_bursts()[workload().key]) == 1


def test_no_space_left_is_one_line_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Run.create(path, "profile", REQUEST) as run:
        run._db.execute("PRAGMA max_page_count=60")
        n_kept = 0
        with pytest.raises(StoreError, match="no space is left") as caught:  # noqa: PT012
            while True:
                run.burst(workload(), burst(n_kept, n=3000))
                n_kept += 1
        assert "\n" not in str(caught.value)
        assert n_kept > 0
        run._db.execute("PRAGMA max_page_count=10000")
        run.burst(workload(), burst(n_kept))
        assert len(run.partial_bursts()[workload().key]) == n_kept + 1


def test_no_space_for_the_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hwprof.files.os.replace", full)
    with pytest.raises(StoreError, match="no space is left"):
        Run.create(tmp_path / "run", "profile", REQUEST)
    monkeypatch.undo()
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert not {n for n in left if "json" in n}, "no half-written description stays behind"
    Run.create(tmp_path / "run", "profile", REQUEST).close()


def test_a_damaged_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "run"
    Run.create(path, "profile", REQUEST).close()
    (path / "run.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(StoreError, match=r"run\.db' is damaged"):
        Run.open(path)
    with pytest.raises(StoreError, match=r"run\.db' is damaged"):
        Run.create_or_resume(path, "profile", REQUEST)
    (path / "run.db").unlink()
    with pytest.raises(StoreError, match=r"has no run\.db"):
        Run.open(path)


def test_a_disk_that_fails_is_no_damage(tmp_path: Path) -> None:
    """SQLite says so, too, of a full disk that has no room for the index of its log."""
    with pytest.raises(StoreError, match="disk is full or gone") as caught, explained(tmp_path):
        raise sqlite3.OperationalError("disk I/O error")
    assert "damaged" not in str(caught.value)


def test_damage_deep_inside_shows_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Run.create(path, "profile", REQUEST) as run:
        for index in range(50):
            run.burst(workload(), burst(index, n=2000))
    content = bytearray((path / "run.db").read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    (path / "run.db").write_bytes(content)
    with Run.open(path) as run, pytest.raises(StoreError, match="is damaged"):
        run.partial_bursts()


def read_and_try_to_write(path: Path) -> list[str]:
    with Run.open(path) as run:
        assert not run.writable
        (bursts,) = run.partial_bursts().values()
    with pytest.raises(StoreError) as caught:
        Run.create_or_resume(path, "profile", REQUEST)
    return [str(len(bursts)), str(caught.value)]


def without_permission(path: Path) -> list[str]:
    """Read a run as a user who may not write into its folder."""
    for parent in path.parents:
        if parent.stat().st_uid == os.getuid() and parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    try:
        return in_child(path) if os.getuid() == 0 else read_and_try_to_write(path)
    finally:
        path.chmod(0o755)


def in_child(path: Path) -> list[str]:
    """Give up root's rights, which no permission holds back, in a child process."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(NOBODY)
            answer = "\n".join(read_and_try_to_write(path))
        except BaseException as error:  # noqa: BLE001 - a forked test must never go on as pytest
            answer = f"child failed\n{error!r}"
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer.splitlines()


@pytest.mark.parametrize("case", ["closed", "killed", "killed and copied without its index"])
def test_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path, case: str) -> None:
    path = tmp_path / "run"
    if case == "closed":
        with Run.create(path, "profile", REQUEST) as run:
            run.burst(workload(), burst(0))
            run.burst(workload(), burst(1))
        n_bursts = 2
        assert not (path / "run.db-wal").exists(), "a closed run is one file"
    else:
        kill_while_writing(path, after=5)
        assert (path / "run.db-wal").stat().st_size > 0
        if case != "killed":
            (path / "run.db-shm").unlink()
        with Run.open(shutil.copytree(path, tmp_path / "copy")) as copy:
            n_bursts = len(copy.partial_bursts()[workload().key])
    counted, refusal = without_permission(path)
    assert counted == str(n_bursts), refusal
    assert "name a" in refusal or "name one" in refusal


DAMAGE = {
    "no JSON": "UPDATE measurements SET plan = '{\"preset\": '",
    "a name that is none": "UPDATE measurements SET plan = replace(plan, 'burst_s', 'bur3t_s')",
    "a name that is missing": "UPDATE workloads SET data = replace(data, 'path', 'pat8')",
    "lists without end": "UPDATE measurements SET evidence = printf('%.*c', 100000, '[')",
    "bursts that are gone": "UPDATE measurements SET bursts = '[[519, []]]'",
    "samples that are no bytes": "UPDATE bursts SET start_ns = 'text'",
    "another text": "UPDATE measurements SET telemetry = CAST(X'B1FF' AS TEXT)",
    "a level outside its interval": "UPDATE measurements SET level_s = level_s * 4",
}


def read_all(path: Path) -> None:
    with Run.open(path) as run:
        assert len(run.measurements()[0].bursts[:]) == 1
        run.networks()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_row_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run"
    with Run.create(path, "profile", REQUEST) as run:
        run.done(measurement(workload(), 1e-3, (0.9e-3, 1.1e-3), bursts=[burst(0)]))
    db = sqlite3.connect(path / "run.db")
    db.execute(DAMAGE[name])
    db.commit()
    db.close()
    with pytest.raises(StoreError, match=r"run\.db' is damaged") as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_a_level_outside_its_interval_reaches_no_estimator(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Run.create(path, "profile", REQUEST) as run:
        run.done(measurement(workload(), 1e-3, (1.1e-3, 1.2e-3), bursts=[burst(0)]))
        with pytest.raises(StoreError, match="in an interval from"):
            run.networks()


def test_a_damaged_schema_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "run"
    Run.create(path, "profile", REQUEST).close()
    content = (path / "run.db").read_bytes()
    for other in (b"start_ns `LOB NOT NULL", b"start_ns `\xb1OB NOT NULL"):
        (path / "run.db").write_bytes(content.replace(b"start_ns BLOB NOT NULL", other))
        with pytest.raises(StoreError, match=r"run\.db' is damaged") as caught:
            Run.open(path)
        assert "\n" not in str(caught.value)
