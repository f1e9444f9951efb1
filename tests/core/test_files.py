"""Files are replaced whole, and a write that fails leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwprof.files import write_whole


def test_a_file_is_replaced_and_nothing_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in (b"one", b"another"):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"old")
    (tmp_path / f".x.json.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_folder_that_is_missing_is_what_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "x.json", b"new")


def test_under_a_lock_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    (tmp_path / ".x.json.partial").write_bytes(b"half of a longer")
    write_whole(path, b"new", alone=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]
