"""Whether a GPU is here, told from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprof.devices.nvidia import cuda_presence
from hwprof.devices.nvidia.cuda_presence import no_gpu, onnxruntime_lacks, torch_lacks


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **folders: Path | None) -> None:
    monkeypatch.setattr(cuda_presence, "_folder", lambda name: folders.get(name))
    monkeypatch.setattr(cuda_presence, "no_gpu", lambda: "")


def torch_folder(tmp_path: Path, cuda: str) -> Path:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "version.py").write_text(f"debug = False\ncuda: Optional[str] = {cuda}\n")
    return folder


def test_the_drivers_files_tell(tmp_path: Path) -> None:
    assert "nvidia-smi" in no_gpu(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert no_gpu(tmp_path) == ""


@pytest.mark.parametrize(("cuda", "words"), [("None", "built without CUDA"), ("'13.0'", "")])
def test_torchs_build(
    cuda: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, monkeypatch, torch=torch_folder(tmp_path, cuda))
    assert (words in torch_lacks()) if words else torch_lacks() == ""


def test_onnx_runtimes_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capi = tmp_path / "onnxruntime/capi"
    capi.mkdir(parents=True)
    folders = {"torch": torch_folder(tmp_path, "'13.0'"), "onnxruntime": capi.parent}
    package(tmp_path, monkeypatch, **folders)
    assert "pip install onnxruntime-gpu" in onnxruntime_lacks()
    (capi / "libonnxruntime_providers_cuda.so").touch()
    assert onnxruntime_lacks() == ""
    package(tmp_path, monkeypatch, onnxruntime=capi.parent)
    assert "torch, which times" in onnxruntime_lacks()
