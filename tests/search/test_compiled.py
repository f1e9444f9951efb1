"""Compiled training: the same network, never one that quietly was not compiled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwprof.api import train
from hwprof.errors import CompileError, PlanError
from hwprof.graph import network_graph, to_torch
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.learning.compiled import SILENCERS, CompiledNetwork
from hwprof.search.learning.sgd import TrainSettings
from hwprof.search.learning.training import train_network, train_supernet
from hwprof.search.proxyless.front import Sweep, search_front
from hwprof.search.proxyless.search import retrain_settings, warmup_settings
from hwprof.search.proxyless.steps import ProxylessConfig
from hwprof.space import Architecture, get_space
from tests.search.test_target import Planted

pytestmark = pytest.mark.usefixtures("small_and_quick")

PLAIN = TrainSettings(epochs=2, batch=16, lr=0.05, warmup_epochs=1.0, seed=5)
ARCH = Architecture(
    space="mobile-mini",
    resolution_px=32,
    units=(("mbconv_k3_e3",), ("mbconv_k5_e3",), ("mbconv_k3_e3",)),
)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SILENCERS:
        monkeypatch.delenv(name, raising=False)


class Breaking(nn.Module):
    """Asks for a value in the middle: torch can only compile what is around it."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum().item() > 0.0:
            x = 2.0 * x
        y: Tensor = self.line(x)
        return y


@needs_compiler
# torch's compiler still uses what torch deprecates.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
class TestCompiled:
    def test_training_comes_to_nearly_the_same(self, task, tmp_path: Path):
        """The same steps with other rounding; settings name one training."""
        for name, settings in (("plain", PLAIN), ("compiled", replace(PLAIN, compiled=True))):
            train_network(ARCH, task, settings, tmp_path / f"{name}.pt")
        plain, compiled = (load_checkpoint(tmp_path / f"{n}.pt") for n in ("plain", "compiled"))
        assert plain.meta.settings == compiled.meta.settings
        assert compiled.meta.loss == pytest.approx(plain.meta.loss, rel=0.02)
        assert plain.weights.keys() == compiled.weights.keys()

    def test_compiling_leaves_weights_and_statistics(self):
        network = to_torch(network_graph(get_space("mobile-mini"), ARCH)).train()
        twin = to_torch(network_graph(get_space("mobile-mini"), ARCH)).train()
        images = torch.from_numpy(
            np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
        )
        run = CompiledNetwork(network)
        torch.testing.assert_close(run(images), twin(images), rtol=1e-3, atol=1e-4)
        assert all(p.grad is None for p in network.parameters())
        # One batch was seen, not two.
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, twin.state_dict()[name], rtol=1e-3, atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize("name", SILENCERS)
    def test_a_variable_that_would_run_it_as_it_is(
        self, name: str, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv(name, "1")
        with pytest.raises(CompileError, match=f"{name} is set"):
            train_network(ARCH, task, replace(PLAIN, compiled=True), tmp_path / "n.pt")
        assert not (tmp_path / "n.pt").exists()

    def test_what_compiles_in_parts_only(self):
        with pytest.raises(CompileError, match=r"torch\.compile refuses the network: "):
            CompiledNetwork(Breaking())(torch.ones(2, 3))

    def test_a_supernet(self, space, task, tmp_path: Path):
        with pytest.raises(PlanError, match="every step runs another path"):
            train_supernet(space, task, replace(PLAIN, compiled=True), tmp_path / "s.pt")
        with pytest.raises(PlanError, match="every step runs another path"):
            train(out=tmp_path / "s.pt", space="mobile-mini", compiled=True)

    def test_a_search_that_retrains_nothing(self, space, task, tmp_path: Path):
        with pytest.raises(PlanError, match="--compile is for retraining"):
            search_front(
                space,
                task,
                Planted(space),
                ProxylessConfig(compiled=True),
                Sweep(),
                latency=lambda archs: [(1e-3, 0.0)] * len(archs),
                folder=tmp_path / "out",
            )
        assert not (tmp_path / "out").exists()


def test_only_retraining_is_compiled(task):
    config = ProxylessConfig(compiled=True)
    assert retrain_settings(config, task).compiled
    assert not warmup_settings(config, task).compiled
    assert config.to_json() == ProxylessConfig().to_json()
