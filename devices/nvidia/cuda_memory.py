"""An NVIDIA GPU's memory: the failure of a full one, and what captures of graphs do to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hwprof.errors import HwprofError

FULL = (
    "use a smaller --batch or --precision fp16, or end what else holds the GPU's memory "
    "(nvidia-smi lists it)"
)
"""What helps where the GPU's memory is full."""
_FULL_WORDS = (
    *("out of memory", "_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation"),
    "DEVICE_ALLOCATION_FAILED",
)
"""In what CUDA (through torch.AcceleratorError), cuBLAS and cuDNN say then; the last is cuDNN 9's."""


def is_memory_full(torch: Any, error: BaseException) -> bool:
    """Return whether an error of torch's says that the GPU's memory is full.

    Only its allocator raises ``OutOfMemoryError``; what CUDA and its libraries take for themselves
    (a context, a graph's kernels, a handle's work space) fails with words alone.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    told = isinstance(error, RuntimeError) and not isinstance(error, HwprofError)
    return told and any(words in str(error) for words in _FULL_WORDS)


@contextmanager
def device_memory(torch: Any, what: str) -> Iterator[None]:
    """Turn every error for a full GPU into the one that failures are typed by.

    Raises:
        MemoryError: instead of torch's own errors; its text says what helps.
    """
    try:
        yield
    except MemoryError as error:
        # The host's own (numpy's is a class apart), or one that says so already.
        if type(error) is not MemoryError or FULL in str(error):
            raise
        raise MemoryError(f"{error}; {FULL}") from error
    except RuntimeError as error:
        if not is_memory_full(torch, error):
            raise
        raise MemoryError(
            f"the GPU's memory does not hold {what} ({one_line(error)}); {FULL}"
        ) from error


@contextmanager
def own_workspace(torch: Any) -> Iterator[None]:
    """Let what is captured inside have cuBLAS's work space in its own pool, and no other use it.

    A graph keeps the address. torch has one such space a stream, and frees it where any graph of
    the stream goes: the others would write to what is no longer theirs (pytorch issue 193402).
    """
    clear = torch._C._cuda_clearCublasWorkspaces
    clear()
    try:
        yield
    finally:
        clear()


def leave_capture(torch: Any, pool: Any) -> None:
    """Take torch's allocator out of a capture that failed, and give back what it took.

    ``CUDAGraph.capture_end`` raises before it does so, and an allocator that believes a capture
    under way gives no memory back: no other capture of the process could begin.
    """
    native, device = torch._C, torch.cuda.current_device()
    # The second is its name before torch 2.8.
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
    leave = next((getattr(native, name) for name in names if hasattr(native, name)), None)
    if leave is not None:
        with suppress(RuntimeError):  # it is out of it, and the graph releases the pool
            leave(device, pool)
            native._cuda_releasePool(device, pool)


def one_line(error: BaseException) -> str:
    """Return the first sentence-like line of a library's message, which may run over many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
