"""Training a network that ``torch.compile`` has compiled.

One plain network runs the same operators at every step and is compiled once. A supernet is not: it
runs another path at each step, which torch would compile anew until it gives up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwprof.errors import CompileError

SILENCERS: Mapping[str, tuple[str, ...]] = {
    "TORCH_COMPILE_DISABLE": ("", "0"),
    "TORCHDYNAMO_DISABLE": ("", "0"),
    # torch takes any text for yes, 0 as well.
    "TORCHDYNAMO_SUPPRESS_ERRORS": ("",),
}
"""Variables by which ``torch.compile`` hands on what it was given, or runs that after an error, and
the values that do not mean it."""


class CompiledNetwork:
    """A network as a function of images, compiled at the first call; never run otherwise.

    The first call also runs a backward pass, as it is compiled apart, and leaves weights and the
    statistics of batch norm as they were.

    Raises:
        CompileError: torch does not compile it; has torch's reason.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        # All networks share one forward(), of which torch compiles eight: forget those before.
        torch.compiler.reset()
        # With graph breaks part of it would run as it is.
        self._run = torch.compile(network, fullgraph=True, dynamic=False)
        self._is_compiled = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits [N, n_classes] of images [N, 3, side, side]; N may not change."""
        if not self._is_compiled:
            self._compile(images)
            self._is_compiled = True
        logits: Tensor = self._run(images)
        return logits

    def _compile(self, images: Tensor) -> None:
        for name, harmless in SILENCERS.items():
            if os.environ.get(name, "") not in harmless:
                raise CompileError(
                    f"cannot compile the network: {name} is set in the environment, by which torch "
                    "would run it as it is; unset it, or leave --compile out"
                )
        before = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
        try:
            self._run(images).float().sum().backward()
        except torch.OutOfMemoryError:
            raise
        # Whatever its parts raise: tracer, code generator, C++ compiler.
        except Exception as error:
            # Behind an empty line torch says how to see more.
            reason = " ".join(str(error).partition("\n\n")[0].split())
            raise CompileError(
                f"torch.compile refuses the network: {type(error).__name__}: {reason}; leave "
                "--compile out"
            ) from error
        finally:
            self._network.load_state_dict(before)
            self._network.zero_grad(set_to_none=True)
