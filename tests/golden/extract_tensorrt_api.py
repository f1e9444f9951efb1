"""Lists what TensorRT's published Python bindings offer, without TensorRT's libraries.

    pip download --no-deps -d wheels tensorrt-cu13-bindings==10.16.1.11
    pip download --no-deps -d wheels tensorrt-cu13-bindings==11.4.0.106
    python tests/golden/extract_tensorrt_api.py wheels/*.whl > tests/golden/tensorrt_api.json

The wheels hold the binding module alone. It imports once the three libraries that it asks for are
on the library path, so stand-ins with the ten C functions that it looks up are built with gcc.
Nothing can be built or run that way, but every class and every member can be listed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getInferLibVersion",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
ORIGIN = (
    "tests/golden/extract_tensorrt_api.py on the wheels of tensorrt-cu13-bindings (PyPI) of these "
    "versions, imported on stand-in libraries: names only, nothing was run"
)

CLASSES = (
    *("Builder", "BuilderFlag", "DataType", "EngineInspector", "ErrorCode", "IBuilderConfig"),
    *("ICudaEngine", "IExecutionContext", "IHostMemory", "ILogger", "ILogger.Severity"),
    *("INetworkDefinition", "IOptimizationProfile", "IProfiler", "ITensor", "ITimingCache"),
    *("LayerInformationFormat", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser"),
    *("ParserError", "ProfilingVerbosity", "Runtime", "TensorIOMode", "TensorLocation"),
)
"""Whose members are kept: what the adapter, or the module that plays TensorRT in tests, touches."""

LIST_MEMBERS = """
import json, sys
import tensorrt_bindings as trt

def members(kind):
    return sorted(name for name in dir(kind) if not name.startswith("_"))

classes = {n: members(k) for n, k in vars(trt).items() if isinstance(k, type)}
nested = {
    f"{n}.{m}": members(getattr(k, m))
    for n, k in vars(trt).items()
    if isinstance(k, type)
    for m in members(k)
    if isinstance(getattr(k, m), type)
}
json.dump({
    "version": trt.__version__,
    "names": ["__version__", *members(trt)],
    "members": {n: m for n, m in sorted({**classes, **nested}.items()) if n in sys.argv},
}, sys.stdout)
"""


def main(wheels: list[str]) -> None:
    """Print the golden file for the given wheels."""
    surfaces = [surface(Path(wheel)) for wheel in wheels]
    versions = {found.pop("version"): found for found in surfaces}
    sys.stdout.write(json.dumps({"origin": ORIGIN, "versions": versions}, indent=1) + "\n")


def surface(wheel: Path) -> dict[str, Any]:
    """Return version, module names and members of classes of one wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        major = wheel.name.split("-")[1].partition(".")[0]
        build_stand_ins(folder, major)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
        listing = subprocess.run(
            [sys.executable, "-c", LIST_MEMBERS, *CLASSES],
            env=environment,
            capture_output=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(listing.stdout)
    return found


def build_stand_ins(folder: Path, major: str) -> None:
    """Build libraries whose functions return null."""
    source = folder / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    empty = folder / "empty.c"
    empty.write_text("")
    for library in LIBRARIES:
        code = source if library == "nvinfer" else empty
        file = f"lib{library}.so.{major}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", folder / file, code],
            check=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
