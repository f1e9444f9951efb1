"""Condition number of the neural tangent kernel and linear regions, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hwprof.search.data.tasks import ImageTask
from hwprof.search.scoring.zero_cost import linear_regions, ntk_condition
from hwprof.search.strategies.indicators import TeNasConfig, Untrained, patches
from hwprof.search.supernets.cell_supernet import CellSupernet, MixedCell, Planned, even_plan
from hwprof.search.supernets.initial import initialise
from hwprof.space import DesignSpace, Slot, get_space

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = get_space("nasbench201")


def only(*ops: str) -> DesignSpace:
    """A space of one cell: these operators on its six edges."""
    return SPACE.restrict({Slot(0, edge): (op,) for edge, op in enumerate(ops)})


class Linear(nn.Module):
    """Logits W x + b of flattened images."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x.flatten(1))
        return logits


def test_kernel_of_a_linear_model_is_that_of_its_inputs() -> None:
    # d(sum of logits)/dW is the input once for every logit: Θ = n_out X Xᵀ, whatever W and b are.
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 2, 2))).float()
    inputs = images.flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(inputs @ inputs.T)
    expected = (eigenvalues[-1] / eigenvalues[0]).item()
    assert ntk_condition(Linear(12, 5), images) == pytest.approx(expected, rel=1e-5)


def test_only_weights_count() -> None:
    class Biased(nn.Module):
        """Logits w·x + 100 b: were b counted, Θ would be nearly of rank one."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight[:, None] + 100.0 * self.bias

    # Θ = diag(1, 4).
    images = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).reshape(2, 2, 1, 1)
    assert ntk_condition(Biased(), images) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "images",
    [torch.ones(2, 3, 2, 2), torch.full((2, 3, 2, 2), math.nan), torch.zeros(2, 3, 2, 2)],
    ids=["equal images", "not finite", "no gradient"],
)
def test_singular_kernel_has_no_condition_number(images: torch.Tensor) -> None:
    assert ntk_condition(Linear(12, 5), images) == math.inf


def test_batch_norm_takes_the_statistics_of_the_images() -> None:
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 3, 4, 4))).float()
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    found = ntk_condition(network.eval(), images)
    # A shift of all images alike is what the norm takes away again.
    assert ntk_condition(network.eval(), images + 7.0) == pytest.approx(found, rel=1e-3)


def test_regions_of_a_small_network_counted_by_hand() -> None:
    # Two ReLUs on the line, with kinks at 0 and 1: three regions, x < 0, 0 < x < 1, x > 1.
    first = nn.Linear(1, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [1.0]]))
        first.bias.copy_(torch.tensor([0.0, -1.0]))
    points = torch.tensor([-2.0, -1.0, 0.25, 0.5, 0.75, 3.0])[:, None]
    for relu in (nn.ReLU(), nn.ReLU(inplace=True), _Method()):
        network = nn.Sequential(first, relu, nn.Linear(2, 1))
        assert linear_regions(network, points) == 3
        assert linear_regions(network, points[:2]) == 1
    # A second layer folds the line once more: |x| meets 1/2 on either side.
    both, sum_of = nn.Linear(1, 2), nn.Linear(2, 1)
    with torch.no_grad():
        both.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        both.bias.zero_()
        sum_of.weight.copy_(torch.tensor([[1.0, 1.0]]))
        sum_of.bias.fill_(-0.5)
    fold = nn.Sequential(both, nn.ReLU(), sum_of, nn.ReLU())
    assert linear_regions(fold, torch.linspace(-1.0, 1.0, 10)[:, None]) == 4


class _Method(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def test_a_network_without_relu_is_one_region() -> None:
    assert linear_regions(nn.Linear(3, 2), torch.randn(20, 3)) == 1


def test_mixed_cell_of_one_cell_is_that_cell() -> None:
    # 3←0 skip, 1←0 pool, 3←1 skip; all else none: x + pool(x).
    cell = only("avg_pool_3x3", "none", "none", "skip_connect", "skip_connect", "none")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 1, 3, 3))).float()
    pooled = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    found = MixedCell(cell, channels=1, size_px=3)(x, even_plan(cell))
    assert torch.allclose(found, x + pooled, atol=1e-6)


def test_live_candidates_are_mixed_in_equal_parts() -> None:
    two = SPACE.restrict(
        {Slot(0, edge): ("none", "skip_connect") if edge == 3 else ("none",) for edge in range(6)}
    )
    x = torch.ones(1, 1, 3, 3)
    assert torch.equal(MixedCell(two, channels=1, size_px=3)(x, even_plan(two)), 0.5 * x)


def test_supernet_runs_what_is_left_of_it() -> None:
    supernet = CellSupernet(SPACE, channels=2)
    initialise(supernet, torch.Generator().manual_seed(0))
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 32, 32))).float()
    assert supernet(images, even_plan(SPACE)).shape == (4, 10)
    cell = only(*["nor_conv_3x3"] * 6)
    part = Planned(supernet, even_plan(cell))
    assert 1.0 <= ntk_condition(part, images) < math.inf


def test_dead_cell_has_no_condition_number(task: ImageTask) -> None:
    dead = only(*["none"] * 6)
    (found,) = Untrained(task=task, config=SMALL)(dead, [dead], (0,))
    assert found.condition == math.inf


SMALL = TeNasConfig(channels=2, n_images=4, n_patches=50, repeats=1)


def test_indicators_are_a_function_of_their_seeds(task: ImageTask) -> None:
    indicate = Untrained(task=task, config=SMALL)
    cell = only(*["nor_conv_3x3"] * 6)
    first = indicate(SPACE, [SPACE, cell], (0, 1))
    assert indicate(SPACE, [SPACE, cell], (0, 1)) == first
    assert indicate(SPACE, [cell], (0, 1)) == first[1:]
    assert indicate(SPACE, [SPACE, cell], (0, 2)) != first
    assert all(1 <= found.regions <= SMALL.n_patches for found in first)


def test_patches_are_cut_from_normalised_images(task: ImageTask) -> None:
    found = patches(task, 200, np.random.default_rng(0)).numpy()
    assert found.shape == (200, 1, 3, 3)
    images = (task.train.images - task.mean) / task.std
    windows = np.lib.stride_tricks.sliding_window_view(images[..., 0], (3, 3), axis=(1, 2))
    known = {w.astype(np.float32).tobytes() for w in np.round(windows.reshape(-1, 3, 3), 4)}
    assert all(np.round(patch[0], 4).astype(np.float32).tobytes() in known for patch in found)
