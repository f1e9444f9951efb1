"""What does an architecture step of ProxylessNAS cost, in memory and time?

    python tests/bench/bench_proxyless.py [--space proxylessnas] [--resolution 224] [--batch 2]
                                          [--seeds 3] [--repeats 5] [--threads 1]

For networks drawn at the start of a search: the activations that autograd keeps (distinct
storages, parameters excluded) and the time of forward and backward pass, for

- a weight step (one path), and a plain network of the same path, taken out of the supernet;
- architecture steps: ``recompute``, ``two-path``, and all options run with detached outputs;
- the straightforward supernet: a softmax over all options, as DARTS has it.

The bars: recompute at most 1.1 and two-path at most 1.3 times the memory of a weight step. Times
are the least of the repeats, the kinds in turn; run it on an otherwise idle machine.
``--repeats 0`` counts memory only, which no other work disturbs.

    python tests/bench/bench_proxyless.py --targets RUN --device cpu --out DIR
                                          [--shares 0.3,0.5,0.7] [--data digits]
                                          [--warmup-epochs 10] [--epochs 30] [--alpha-lr 0.01]
                                          [--train-only]

searches for target latencies at these shares of the range of RUN's space (a profile on DEVICE),
measures the derived networks on DEVICE, and prints how near they came; the bar is 5 %. Called again
it goes on; all targets share one warm-up. ``--train-only`` leaves out the measuring, which wants
the machine to itself: the same command without it then measures only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwprof.api import ProxylessOptions, search
from hwprof.api.runs import latency_model
from hwprof.search.proxyless.choices import Choices
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.plans import full_plan, pair_plan, run_plan
from hwprof.search.proxyless.target import latency_range_s
from hwprof.search.supernets.elastic import supernet_of
from hwprof.search.supernets.gates import GatePlan, Mix, frozen
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import get_space
from tests.search.saved_bytes import saved_bytes

MIB = 2**20
BARS = {"recompute": 1.1, "two-path": 1.3}


def softmax_plan(choices: Choices) -> GatePlan:
    """Return the plan that runs everything, weighted by its probability."""
    p, space = choices.probabilities(), choices.space
    return GatePlan(
        blocks={s: Mix(run=space.choices(s), gate=p[s]) for s in space.slots if s in p}
        | {s: Mix(run=space.choices(s)) for s in space.slots if s not in p},
        depths={w: Mix(run=space.depths(w), gate=p[w]) for w in p if isinstance(w, int)},
        factors={f.name: Mix(run=f.levels, gate=p[f]) for f in space.factors},
    )


class Kinds:
    """The steps to compare, on one supernet, for the network of one seed."""

    def __init__(self, net: Supernet, images: Tensor, seed: int) -> None:
        self.net, self.images = net, images
        choices, rng = Choices(net.space, seed=seed), np.random.default_rng(seed)
        path = choices.draw(rng)
        pairs = choices.draw_pairs(rng)
        plain = net.extract(path.arch).train()

        def architecture(plan: Callable[[], GatePlan]) -> Callable[[bool], Tensor | int]:
            def run(memory: bool) -> Tensor | int:
                with frozen(net):
                    return self._step(lambda: net(images, plan()), memory)

            return run

        self.kinds: dict[str, Callable[[bool], Tensor | int]] = {
            "weight step": lambda memory: self._step(lambda: net(images, run_plan(path)), memory),
            "plain network": lambda memory: self._step(lambda: plain(images), memory, plain),
            "recompute": architecture(
                lambda: full_plan(path, choices.probabilities(), recompute=True)
            ),
            "two-path": architecture(lambda: pair_plan(choices, pairs, rng)[0]),
            "all paths, detached": architecture(
                lambda: full_plan(path, choices.probabilities(), recompute=False)
            ),
            # As written without further thought: its weights take gradients too.
            "softmax over all": lambda memory: self._step(
                lambda: net(images, softmax_plan(choices)), memory
            ),
        }

    def _step(
        self, forward: Callable[[], Tensor], memory: bool, module: nn.Module | None = None
    ) -> Tensor | int:
        def loss() -> Tensor:
            labels = torch.zeros(len(self.images), dtype=torch.int64)
            return functional.cross_entropy(forward(), labels)

        if memory:
            return saved_bytes(module or self.net, loss)
        self.net.zero_grad(set_to_none=True)
        found = loss()
        found.backward()
        return found


def print_targets(asked: argparse.Namespace) -> None:
    """Search for targets, measure what was derived, and print how near it came."""
    model, _ = latency_model(asked.targets)
    latency = ExpectedLatency(model, model.space)
    low_s, high_s = latency_range_s(latency, model.space)
    shares = [float(part) for part in asked.shares.split(",")]
    targets_ms = tuple(round(1e3 * (low_s + s * (high_s - low_s)), 4) for s in shares)
    result = search(
        space=model.space,
        latency=asked.targets,
        strategy="proxyless",
        data=asked.data,
        measure_on=None if asked.train_only else asked.device,
        script=asked.script,
        out=asked.out,
        proxyless=ProxylessOptions(
            penalty="target",
            targets_ms=targets_ms,
            warmup_epochs=asked.warmup_epochs,
            epochs=asked.epochs,
            train_batch=asked.train_batch,
            alpha_lr=asked.alpha_lr,
            limit_images=asked.limit_images,
        ),
    )
    print(f"{model.space.name}: {low_s * 1e3:.4g} to {high_s * 1e3:.4g} ms by the model")
    print(f"{'target':>9}{'expected':>10}{'argmax':>9}{'derived':>9}{'measured':>10}{'off':>8}")
    for found in result.targets:
        measured = "-" if found.measured_s is None else f"{found.measured_s * 1e3:.4f}"
        held = "" if found.is_limiting else ", latency did not hold it back"
        if found.faster is not None:
            held += f" (faster alternative: {found.faster.latency_s * 1e3:.4f})"
        print(
            f"{found.target_s * 1e3:>9.4f}{found.expected_s * 1e3:>10.4f}"
            f"{found.argmax_s * 1e3:>9.4f}{found.predicted_s * 1e3:>9.4f}{measured:>10}"
            f"{100 * found.deviation:>+7.1f}%  {found.verdict}{held}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="proxylessnas")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--targets", metavar="RUN")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out")
    parser.add_argument("--train-only", action="store_true", help="leave the measuring for later")
    parser.add_argument("--shares", default="0.3,0.5,0.7")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--warmup-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--train-batch", type=int, default=64)
    parser.add_argument("--alpha-lr", type=float, help="more than 0.001 for few epochs")
    parser.add_argument("--limit-images", type=int)
    parser.add_argument("--script", help="of the null device")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.targets is not None:
        if asked.out is None:
            parser.error("--targets needs --out, a folder for the searches")
        print_targets(asked)
        return
    net = supernet_of(get_space(asked.space, asked.resolution), seed=0)
    generator = torch.Generator().manual_seed(0)
    side = asked.resolution
    images = torch.randn(asked.batch, 3, side, side, generator=generator)
    memory: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    for seed in range(asked.seeds):
        steps = Kinds(net, images, seed).kinds
        least = dict.fromkeys(steps, float("inf"))
        for kind, step in steps.items():
            memory.setdefault(kind, []).append(int(step(True)) / asked.batch / MIB)
            if asked.repeats:
                step(False)  # untimed: the first time allocates
        for _ in range(asked.repeats):
            for kind, step in steps.items():
                started_s = time.perf_counter()
                step(False)
                least[kind] = min(least[kind], time.perf_counter() - started_s)
        for kind, value in least.items():
            times.setdefault(kind, []).append(value)
    print(f"{asked.space} at {side} px, batch {asked.batch}, mean of {asked.seeds} networks")
    print(f"{'step':<22}{'MiB / image':>12}{'of a weight step':>18}{'s':>9}{'of it':>7}")
    base_mib, base_s = fmean(memory["weight step"]), fmean(times["weight step"])
    for kind, found in memory.items():
        mib, seconds = fmean(found), fmean(times[kind])
        bar = BARS.get(kind)
        met = "" if bar is None else f"  bar {bar}: {'met' if mib <= bar * base_mib else 'MISSED'}"
        timed = f"{seconds:>9.3f}{seconds / base_s:>7.2f}" if asked.repeats else f"{'-':>9}{'-':>7}"
        print(f"{kind:<22}{mib:>12.1f}{mib / base_mib:>18.2f}{timed}{met}")


if __name__ == "__main__":
    main()
