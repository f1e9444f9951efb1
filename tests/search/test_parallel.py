"""Training in two processes over gloo on the CPU: one search, the same in both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwprof.search.learning import parallel

PRELUDE = """
import sys, torch
torch.set_num_threads(1)
from hwprof.search.learning import parallel
"""

AVERAGES = """
with parallel.process_group("cpu"):
    r = parallel.rank()
    a, b = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))
    idle = torch.nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.full((3,), 1.0 + r), torch.full((2, 2), 10.0 * r)
    parallel.average_gradients([a, idle, b])
    assert a.grad.tolist() == [1.5] * 3, a.grad
    assert b.grad.tolist() == [[5.0, 5.0]] * 2, b.grad
    assert idle.grad is None
    assert parallel.mean(float(r)) == 0.5
    assert parallel.decided_by_first(r == 0) and not parallel.decided_by_first(r == 1)
    import numpy as np
    assert parallel.share(np.arange(6)).tolist() == [[0, 2, 4], [1, 3, 5]][r]
"""

SEARCH = """
from pathlib import Path
from hwprof.estimate.block_table import table_model
from hwprof.search.learning import training
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.steps import ProxylessConfig
from hwprof.search.proxyless.search import search_network, warmup_settings
from hwprof.search.learning.sgd import Training
from hwprof.search.data.tasks import load_task
from hwprof.space import get_space
from hwprof.store import ImportedBlock

training.JUDGED_NETWORKS = 2
folder, mode = Path(sys.argv[1]), sys.argv[2]
whole = get_space("mobile-mini")
space = whole.restrict(dict.fromkeys(whole.slots, ("mbconv_k3_e3", "mbconv_k5_e3")), (2, 1, 1))
table = table_model(whole, [ImportedBlock(resolution_px=32, unit=None, layer=None, block="fixed",
    latency_s=4e-4)] + [ImportedBlock(resolution_px=32, unit=s.unit, layer=s.layer, block=b,
    latency_s=1e-4 * (i + 1)) for s in whole.slots for i, b in enumerate(whole.choices(s))])
task = load_task("digits", resolution_px=32, limit_images=80)
config = ProxylessConfig(mode=mode, warmup_epochs=1, epochs=2, batch=12, alpha_lr=0.05,
    networks_per_update=2, alpha_every=2, reward_images=13)
ordinary = Training.run
def run(self, *args, **kwargs):
    done = ordinary(self, *args, **kwargs)
    torch.save({"weights": dict(self.module.state_dict()), "beside": self.companion and
        self.companion.state_dict()["alpha"], "loss": done.loss}, folder / f"rank{parallel.rank()}.pt")
    return done
Training.run = run
with parallel.process_group("cpu"):
    training.train_supernet(space, task, warmup_settings(config, task), folder / "w.pt")
    found = search_network(space, task, ExpectedLatency(table, space), Penalty(weight=0.1,
        target_s=2e-3), config, warmup=folder / "w.pt", out=folder / "s.pt")
    print(found.arch.canonical_json(), found.validation_pct)
"""

INTERRUPTED = """
import signal, time
from pathlib import Path
from hwprof.search.data.tasks import load_task
from hwprof.search.learning import sgd, training
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.space import get_space

# What a shell starts in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
training.JUDGED_NETWORKS = 2
path, receiver = Path(sys.argv[1]), int(sys.argv[2])
whole = get_space("mobile-mini")
space = whole.restrict(dict.fromkeys(whole.slots, ("mbconv_k3_e3", "mbconv_k5_e3")), (2, 1, 1))
step, save = sgd.Training._step, sgd.save_checkpoint
def signalled(self, batch):
    if self.meta.step == 2 and parallel.rank() == receiver:
        signal.raise_signal(signal.SIGINT)
    step(self, batch)
def slowly(*args, **kwargs):
    time.sleep(1.0)
    save(*args, **kwargs)
sgd.Training._step, sgd.save_checkpoint = signalled, slowly
with parallel.process_group("cpu"):
    try:
        training.train_supernet(space, load_task("digits", resolution_px=32, limit_images=80),
            sgd.TrainSettings(epochs=2, batch=16), path)
    except KeyboardInterrupt:
        print(load_checkpoint(path).meta.step)
"""


def in_two_processes(code: str, *arguments: str) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *arguments],
            env={**common, "RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    try:
        done = [process.communicate(timeout=180) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, done, strict=True):
        assert process.returncode == 0, errors
    return [out for out, _ in done]


def test_gradients_and_decisions_are_shared():
    in_two_processes(AVERAGES)


@pytest.mark.parametrize("mode", ["recompute", "reinforce"])
def test_a_search_is_the_same_in_both_processes(mode: str, tmp_path: Path):
    first, second = in_two_processes(SEARCH, str(tmp_path), mode)
    assert first == second != ""
    a, b = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2))
    for name, tensor in a["weights"].items():
        assert torch.equal(tensor, b["weights"][name]), name
    assert a["beside"]
    for name, alpha in a["beside"].items():
        assert torch.equal(alpha, b["beside"][name]), name
    assert a["loss"] == b["loss"]


def test_a_signal_to_one_ends_both_when_the_checkpoint_is_written(tmp_path: Path):
    # The second one gets it, which does not write.
    assert in_two_processes(INTERRUPTED, str(tmp_path / "s.pt"), "1") == ["3\n", "3\n"]


def test_alone_nothing_happens():
    module = nn.BatchNorm2d(2)
    parallel.average_statistics(module)
    parallel.wait()
    with parallel.process_group("cpu"):
        assert (parallel.world_size(), parallel.rank()) == (1, 0)
    assert parallel.mean(0.3) == 0.3
    assert parallel.decided_by_first(True)
    assert parallel.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
