"""What a checkpoint brings back, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hwprof.errors import DataError, FormatVersionError, IncompatibleRunError, StoreError
from hwprof.search.learning import checkpoint
from hwprof.search.learning.checkpoint import (
    load_checkpoint,
    save_checkpoint,
    space_from_json,
    space_to_json,
    task_from_json,
)
from hwprof.search.learning.sgd import TrainSettings
from hwprof.search.learning.training import train_supernet
from hwprof.search.supernets.ofa_weights import is_published
from hwprof.space import MBConvSpace, UnitLayout
from hwprof.space.pieces import Activation
from tests.made import own_space

pytestmark = pytest.mark.usefixtures("small_and_quick")


@pytest.fixture(scope="module")
def finished(space, task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("finished") / "s.pt"
    train_supernet(
        space, task, TrainSettings(epochs=1, batch=16, lr=0.05, warmup_epochs=1.0, seed=5), path
    )
    return path


class TestCheckpoint:
    def test_brings_back_space_and_images(self, finished: Path, space, task):
        meta = load_checkpoint(finished).meta
        assert space_from_json(meta.space) == space
        again = task_from_json(meta.task, resolution_px=32)
        assert again.digest == task.digest

    def test_finished_it_carries_no_optimizer(self, finished: Path):
        assert load_checkpoint(finished).optimizer is None

    def test_only_its_lock_is_left_beside_it(self, finished: Path):
        """Whether a lock's file stays is up to filelock and the system."""
        left = {p.name for p in finished.parent.iterdir()}
        assert left - {".s.pt.lock"} == {"s.pt"}

    def test_other_images_are_refused(self, finished: Path):
        meta = load_checkpoint(finished).meta
        with pytest.raises(DataError, match="other images than the checkpoint was trained on"):
            task_from_json(dict(meta.task) | {"split_seed": 1}, resolution_px=32)

    @pytest.mark.parametrize(
        "content", [b"", b"no checkpoint", b"PK\x03\x04", b"arch,accuracy_pct\n", b"j\x84\xc9F"]
    )
    def test_a_file_that_is_none(self, content: bytes, tmp_path: Path):
        path = tmp_path / "x.pt"
        path.write_bytes(content)
        with pytest.raises(DataError, match="no checkpoint or is damaged"):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
        ],
    )
    @pytest.mark.parametrize("read", [load_checkpoint, is_published])
    def test_a_sound_file_that_does_not_fit_is_not_called_damaged(
        self, read, error: Exception, finished: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)
        with pytest.raises(DataError, match="does not fit into the memory that is free"):
            read(finished)

    def test_a_file_cut_short(self, finished: Path, tmp_path: Path):
        short = tmp_path / "x.pt"
        short.write_bytes(finished.read_bytes()[:-1000])
        with pytest.raises(DataError, match="damaged"):
            load_checkpoint(short)

    def test_a_torch_file_of_something_else(self, tmp_path: Path):
        path = tmp_path / "x.pt"
        torch.save({"weight": torch.zeros(2)}, path)
        with pytest.raises(DataError, match="no checkpoint"):
            load_checkpoint(path)

    @pytest.mark.parametrize("meta", [{}, {"meta": "[1]"}, {"meta": "{}", "weights": {}}])
    def test_a_torch_file_that_only_names_the_format(self, meta: dict[str, Any], tmp_path: Path):
        torch.save({"format": 1, **meta}, tmp_path / "x.pt")
        with pytest.raises(DataError, match="no checkpoint"):
            load_checkpoint(tmp_path / "x.pt")

    def test_a_torch_file_of_a_tensor(self, tmp_path: Path):
        torch.save(torch.zeros(2), tmp_path / "x.pt")
        with pytest.raises(DataError, match="no checkpoint"):
            load_checkpoint(tmp_path / "x.pt")

    def test_a_disk_that_fills_up_keeps_the_earlier_one(self, finished: Path, tmp_path: Path):
        resource = pytest.importorskip("resource", reason="limits the size of files")
        path = tmp_path / "s.pt"
        path.write_bytes(finished.read_bytes())
        meta = load_checkpoint(path).meta
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(StoreError, match="cannot write the checkpoint") as caught:
                save_checkpoint(path, meta, torch.nn.Linear(300, 300), None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == finished.read_bytes()
        assert [p.name for p in tmp_path.iterdir()] == ["s.pt"]

    def test_missing(self, tmp_path: Path):
        with pytest.raises(DataError, match="No such file"):
            load_checkpoint(tmp_path / "x.pt")

    def test_another_version(self, finished: Path, tmp_path: Path):
        content = torch.load(finished, weights_only=True) | {"format": 2}
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(FormatVersionError, match="format 2"):
            load_checkpoint(tmp_path / "x.pt")


def edited(act: Activation) -> MBConvSpace:
    """One space by name and words; the activation is in neither."""
    unit = UnitLayout(
        channels=8,
        stride=2,
        min_depth=1,
        max_depth=1,
        act=act,
        candidates=("mbconv_k3_e3", "mbconv_k5_e3"),
    )
    return own_space(unit)


class TestASpaceThatWasEdited:
    """Its name and its blocks' names are what they were, and so are all shapes."""

    def test_accuracies_of_its_checkpoint_are_refused(self, monkeypatch: pytest.MonkeyPatch):
        before, after = edited("relu"), edited("hswish")
        kept = space_to_json(before)
        monkeypatch.setattr(checkpoint, "get_space", lambda name, resolution_px: before)
        assert space_from_json(kept) == before
        monkeypatch.setattr(checkpoint, "get_space", lambda name, resolution_px: after)
        with pytest.raises(IncompatibleRunError, match="trained with another 'own-space'"):
            space_from_json(kept)
        older = {name: value for name, value in kept.items() if name != "built"}
        assert space_from_json(older) == after

    def test_its_training_is_not_gone_on_with(self, task, tmp_path: Path):
        settings = TrainSettings(epochs=1, batch=16, lr=0.05, warmup_epochs=1.0, seed=5)
        train_supernet(edited("relu"), task, settings, tmp_path / "s.pt")
        assert train_supernet(edited("relu"), task, settings, tmp_path / "s.pt").finished
        with pytest.raises(IncompatibleRunError, match="trained with another 'own-space'"):
            train_supernet(edited("hswish"), task, settings, tmp_path / "s.pt")
