"""Small files that would unpack or unfold to more than any memory holds are refused in one line."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import pytest

from hwprof import npz
from hwprof.errors import DataError, HwprofError, StoreError
from hwprof.estimate.latency_model_file import read_model
from hwprof.importing import tables
from hwprof.regression.suite import read_suite
from hwprof.space.reading import load_space_file


def archive(path: Path, *, shape: str, content: bytes = b"") -> Path:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    whole = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("meta.npy", whole)
    return path


def test_a_shape_without_end(tmp_path: Path) -> None:
    path = archive(tmp_path / "images.npz", shape=f"({10**15},)")
    with pytest.raises(DataError, match="Unable to allocate"):
        npz.load_arrays(path)
    with pytest.raises(StoreError, match="cannot read"):
        read_model(path, None)


def test_an_archive_that_unpacks_to_more_than_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "images.npz", shape=f"({2**20},)", content=bytes(2**20))
    assert path.stat().st_size < 2**12
    assert npz.load_arrays(path)["meta"].size == 2**20
    monkeypatch.setattr(npz, "MEMORY_SHARE", 0.0)
    with pytest.raises(DataError, match=r"it unpacks to 0\.0 GiB"):
        npz.load_arrays(path)


@pytest.mark.parametrize(("entry", "value"), [(8, 1), (10, 99)])
def test_an_archive_with_a_password_or_another_packing(
    tmp_path: Path, entry: int, value: int
) -> None:
    path = archive(tmp_path / "model.npz", shape="(0,)")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + entry] = value
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot read"):
        read_model(path, None)


def test_a_packed_table_is_unpacked_no_further_than_a_table_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"arch,latency_ms\n" + b"\n" * 2**21))
    monkeypatch.setattr(tables, "MOST_BYTES", 2**20)
    with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
        tables.read_table(path)


@pytest.mark.parametrize("head", ["space: mobile-mini", "design_space: my-space"])
def test_aliases_of_aliases(tmp_path: Path, head: str) -> None:
    lines = ["format: 1", head, "resolution_px: 32", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path = tmp_path / "space.yaml"
    path.write_text("\n".join([*lines, "max_depth: *a9", ""]))
    with pytest.raises(HwprofError, match="aliases that repeat without end") as caught:
        load_space_file(path)
    assert len(str(caught.value)) < 300
    with pytest.raises(HwprofError, match="aliases that repeat without end"):
        read_suite(path)


def test_an_alias_of_what_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("format: 1\nspace: &a [*a]\n")
    with pytest.raises(HwprofError, match="aliases that repeat without end"):
        load_space_file(path)
