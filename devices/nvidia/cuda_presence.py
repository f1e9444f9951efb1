"""Whether an NVIDIA GPU and what drives it are here, told without importing any of it."""

from __future__ import annotations

import re
from importlib import util
from pathlib import Path

GPU_FILES = ("dev/nvidia0", "dev/nvidiactl", "dev/dxg", "dev/nvgpu", "dev/nvhost-gpu")
"""The driver's device files: a PC, a container, WSL, and two generations of Jetson."""
_TORCH_CUDA = re.compile(r"^cuda\b[^=]*=\s*(.+)$", re.MULTILINE)
_ORT_CUDA = "libonnxruntime_providers_cuda"


def no_gpu(root: Path = Path("/")) -> str:
    """Return why no NVIDIA GPU can be used; empty where its driver is there."""
    if any((root / name).exists() for name in GPU_FILES):
        return ""
    return (
        "no NVIDIA GPU with its driver is here (/dev/nvidia0 is missing): run where nvidia-smi "
        "lists one, or use cuda@ssh://user@host"
    )


def torch_lacks() -> str:
    """Return why torch cannot reach a GPU; empty where nothing speaks against it."""
    folder = _folder("torch")
    text = (folder / "version.py").read_text() if folder is not None else ""
    built = _TORCH_CUDA.search(text)
    if no := no_gpu():
        return no
    if built is not None and built[1].strip() == "None":
        return (
            "torch is built without CUDA: install one that is, as pytorch.org/get-started tells "
            "(compute platform: CUDA)"
        )
    return ""


def timing_lacks() -> str:
    """Return why nothing can be timed on a GPU; empty where nothing speaks against it.

    For runtimes of their own, which torch only times and holds memory for.
    """
    if _folder("torch") is not None:
        return torch_lacks()
    return no_gpu() or (
        "torch, which times GPU work, is not installed: run pip install 'hwprof[search]'"
    )


def onnxruntime_lacks() -> str:
    """Return why ONNX Runtime cannot reach a GPU; empty where nothing speaks against it."""
    if no := timing_lacks():
        return no
    folder = _folder("onnxruntime")
    if folder is not None and not list((folder / "capi").glob(f"{_ORT_CUDA}*")):
        return (
            "onnxruntime is built without CUDA: run pip uninstall -y onnxruntime && pip install "
            "onnxruntime-gpu"
        )
    return ""


def _folder(package: str) -> Path | None:
    """Return where a package is installed, without importing it."""
    found = util.find_spec(package)
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None
