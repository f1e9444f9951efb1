"""What is trained in tests is small and quick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hwprof.estimate.block_table import table_model
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.search.data.tasks import DIGITS, ImageTask, load_task
from hwprof.search.learning import training
from hwprof.search.learning.training import train_supernet
from hwprof.search.proxyless.search import warmup_settings
from hwprof.space import DesignSpace, get_space, resnet50
from hwprof.store import ImportedBlock
from tests.search.kills import CONFIG
from tests.search.mini import FEW
from tests.search.thin import THIN

MINI = get_space("mobile-mini")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    # Tiny tensors: threads would only wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small_and_quick(one_thread: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "JUDGED_NETWORKS", 2)
        yield


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return load_task(DIGITS, resolution_px=32, limit_images=80)


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    return MINI.restrict(FEW, (2, 1, 1))


@pytest.fixture(scope="module")
def model() -> AdditiveLatencyModel:
    """A table of the whole space: later candidates cost more."""
    places = [(None, None, "fixed", 0.4e-3)] + [
        (slot.unit, slot.layer, block, (0.1 + 0.05 * i) * 1e-3)
        for slot in MINI.slots
        for i, block in enumerate(MINI.choices(slot))
    ]
    return table_model(
        MINI,
        [
            ImportedBlock(
                resolution_px=32,
                unit=unit,
                layer=layer,
                block=block,
                latency_s=latency_s,
                sd_s=None,
                count=None,
            )
            for unit, layer, block, latency_s in places
        ],
    )


@pytest.fixture(scope="module")
def warmup(space: DesignSpace, task: ImageTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("warm") / "warmup.pt"
    train_supernet(space, task, warmup_settings(CONFIG, task), out)
    return out


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> DesignSpace:
    monkeypatch.setattr(resnet50, "UNIT_WIDTHS", THIN)
    return replace(get_space("ofa-resnet50", 32), n_classes=10)
