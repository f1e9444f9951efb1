"""What is trained in tests is small and quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hwprof.search import training
from hwprof.search.tasks import DIGITS, ImageTask, load_task
from hwprof.space import DesignSpace, get_space
from tests.search.mini import FEW


@pytest.fixture(scope="module")
def small_and_quick() -> Iterator[None]:
    # Tiny tensors: threads would only wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "JUDGED_NETWORKS", 2)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return load_task(DIGITS, resolution_px=32, limit_images=80)


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    return get_space("mobile-mini").restrict(FEW, (2, 1, 1))
