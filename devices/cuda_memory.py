"""What says that an NVIDIA GPU's memory is full, and the failure that it is typed by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


def one_line(error: BaseException) -> str:
    """Return the first sentence-like line of a library's message, which may run over many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
