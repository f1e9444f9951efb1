"""What does a training step gain from channels last, and from ``torch.compile``?

    python -m tests.bench.bench_training_step [--repeats 20] [--threads 1] [--device cpu]

Steps (forward, backward, SGD) of one network as PyTorch lays it out, with weights and images channels
last as hwprof trains everything, and compiled on top as ``--compile`` trains plain networks. The three
take turns, so that all meet the same weather; ratios are medians over turns with 95 % BCa bootstrap
intervals. Beside them: the seconds that compiling takes, and the steps after which it has paid.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwprof.graph import network_graph, to_torch
from hwprof.search.learning.compiled import CompiledNetwork
from hwprof.search.learning.sgd import MOMENTUM
from hwprof.search.supernets.initial import initialise
from hwprof.search.supernets.supernet import channels_last
from hwprof.space import get_space
from tests.bench.common import bootstrap, markdown

CASES = (
    ("mobile-mini", 32, 64),
    ("proxylessnas", 64, 32),
    ("proxylessnas", 128, 16),
    ("ofa-mbv3-w1.0", 128, 16),
    ("ofa-resnet50", 128, 8),
)
"""Space, resolution in pixels, images a batch; the network is the space's first random one."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """A batch that never changes."""

    pixels: Tensor
    labels: Tensor


def network_of(name: str, resolution_px: int, device: str) -> nn.Module:
    """Return a network of a space, the same at every call."""
    space = get_space(name, resolution_px)
    arch = space.sample(np.random.default_rng(0))
    network = to_torch(network_graph(space, arch)).train()
    initialise(network, torch.Generator().manual_seed(0))
    return network.to(device)


def step_of(
    run: Callable[[Tensor], Tensor], network: nn.Module, images: Images
) -> Callable[[], float]:
    """Return a function that takes one training step and returns its seconds."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=MOMENTUM, nesterov=True)

    def step() -> float:
        started_s = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(run(images.pixels), images.labels).backward()
        optimizer.step()
        if images.pixels.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started_s

    return step


def case(name: str, resolution_px: int, batch: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Time one network."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, resolution_px, resolution_px, generator=generator)
    plain = Images(
        pixels=pixels.to(asked.device), labels=(torch.arange(batch) % 10).to(asked.device)
    )
    last = Images(pixels=plain.pixels.to(memory_format=torch.channels_last), labels=plain.labels)
    networks = [network_of(name, resolution_px, asked.device) for _ in range(3)]
    for network in networks[1:]:
        channels_last(network)
    compiled = CompiledNetwork(networks[2])
    started_s = time.perf_counter()
    compiled(last.pixels)
    compiling_s = time.perf_counter() - started_s
    steps = {
        "plain": step_of(networks[0], networks[0], plain),
        "last": step_of(networks[1], networks[1], last),
        "compiled": step_of(compiled, networks[2], last),
    }
    order, rng = list(steps), np.random.default_rng(0)
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for turn in range(-2, asked.repeats):
        for kind in rng.permutation(order):
            seconds = steps[kind]()
            if turn >= 0:  # the first ones allocate
                times[kind].append(seconds)
    taken = {kind: np.array(values) for kind, values in times.items()}
    saved_s = float(np.median(taken["last"] - taken["compiled"]))
    return {
        "network of": f"{name}, {resolution_px} px",
        "batch": batch,
        "plain, images/s": batch / float(np.median(taken["plain"])),
        "channels last / plain, speed": bootstrap(np.median, taken["plain"] / taken["last"]),
        "compiled / channels last, speed": bootstrap(np.median, taken["last"] / taken["compiled"]),
        "compiling, s": compiling_s,
        "pays after steps": f"{compiling_s / saved_s:.0f}" if saved_s > 0 else "never",
    }


def main() -> None:
    """Time every case; print each row of the table as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for index, (name, resolution_px, batch) in enumerate(CASES):
        lines = markdown([case(name, resolution_px, batch, asked)]).splitlines()
        # At once: whatever ends the program later, what was measured is there.
        print("\n".join(lines if index == 0 else lines[-1:]), flush=True)


if __name__ == "__main__":
    main()
