"""The devices that hwprof can measure on, by name; importing this imports no runtime.

Another package adds a device with an entry point in the group ``hwprof.devices``:
``my-npu = "my_package.adapter:MyNpuAdapter"``, and with one of the same name in the group
``hwprof.device_checks`` what says, without importing a runtime, what it lacks here. Called, the
package is the command: ``help(hwprof.api.devices)``.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

from hwprof._callable import make_callable
from hwprof.errors import PlanError
from hwprof.measure.loading import lack

if TYPE_CHECKING:
    from hwprof.devices.remote.address import Address
    from hwprof.measure.records import DeviceOptions, DeviceRef
    from hwprof.protocols import DeviceAdapter

ENTRY_POINTS = "hwprof.devices"
CHECK_ENTRY_POINTS = "hwprof.device_checks"
THIS_CPU = "this CPU"
NVIDIA_GPU = "NVIDIA GPU"
GPU_MEMORY = "hwprof.devices.nvidia.gpu_memory:free_bytes"
REMOTE_LAUNCHER = "hwprof.devices.remote.launcher:launch"


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How a device is opened, and what must be installed for it.

    ``package`` is the runtime's import name, ``distribution`` what pip calls it, ``install``
    the command that brings it. All empty where the adapter needs nothing.
    """

    factory: str
    runtime: str
    hardware: str
    package: str = ""
    distribution: str = ""
    install: str = ""
    model_format: str = ""
    """Suffix of the files that networks and blocks become where they are measured on another
    machine; empty where the adapter builds them there."""
    instead: tuple[str, str] | None = None
    """Import name and distribution of a runtime that is taken where ``package`` is missing."""
    check: str = ""
    """``package.module:function`` that says, without importing a runtime, what else is missing;
    it returns an empty text where nothing is."""
    memory: str | None = None
    """``package.module:function`` that tells the free bytes of the device's own memory, without
    importing a runtime; None where it works in the host's."""
    refuses: str = ""
    """``package.module:function`` that says of a workload and options, without importing a runtime,
    why they are not taken; empty where only the runtime knows."""
    converter: str = ""
    """Import name of what hwprof writes the runtime's models with, where that is needed."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What an environment must have, beside numpy, for workers to run in it."""
        return tuple(name for name in (self.package, self.converter) if name)


BUILTIN: Mapping[str, Registration] = {
    "cpu": Registration(
        factory="hwprof.devices.cpu:CpuAdapter",
        refuses="hwprof.devices.cpu:refuses",
        runtime="onnxruntime",
        hardware=THIS_CPU,
        package="onnxruntime",
        distribution="onnxruntime",
        install="pip install onnxruntime",
        model_format="onnx",
        converter="onnx",
    ),
    "cpu-torch": Registration(
        factory="hwprof.devices.cpu_torch:CpuTorchAdapter",
        refuses="hwprof.devices.cpu_torch:refuses",
        runtime="torch",
        hardware=THIS_CPU,
        package="torch",
        distribution="torch",
        install="pip install 'hwprof[search]'",
    ),
    "openvino": Registration(
        factory="hwprof.devices.openvino:OpenvinoAdapter",
        refuses="hwprof.devices.openvino:refuses",
        runtime="openvino",
        hardware=THIS_CPU,
        package="openvino",
        distribution="openvino",
        install="pip install 'hwprof[openvino]'",
        model_format="onnx",
        converter="onnx",
    ),
    "tflite": Registration(
        factory="hwprof.devices.litert.tflite:TfliteAdapter",
        refuses="hwprof.devices.litert.tflite:refuses",
        runtime="ai-edge-litert",
        hardware=THIS_CPU,
        package="ai_edge_litert",
        distribution="ai-edge-litert",
        install="pip install 'hwprof[tflite]'",
        instead=("tflite_runtime", "tflite-runtime"),
        model_format="tflite",
    ),
    **{
        name: Registration(
            factory=f"hwprof.devices.nvidia.cuda:{adapter}",
            runtime="torch",
            hardware=NVIDIA_GPU,
            package="torch",
            distribution="torch",
            install="pip install 'hwprof[search,cuda]'",
            check="hwprof.devices.nvidia.cuda_presence:torch_lacks",
            memory=GPU_MEMORY,
        )
        for name, adapter in (
            ("cuda", "CudaAdapter"),
            ("cuda-eager", "CudaEagerAdapter"),
            ("cuda-compiled", "CudaCompiledAdapter"),
        )
    },
    "cuda-ort": Registration(
        factory="hwprof.devices.nvidia.cuda_ort:CudaOrtAdapter",
        runtime="onnxruntime",
        hardware=NVIDIA_GPU,
        package="onnxruntime",
        distribution="onnxruntime-gpu",
        install="pip install onnxruntime-gpu",
        check="hwprof.devices.nvidia.cuda_presence:onnxruntime_lacks",
        memory=GPU_MEMORY,
        model_format="onnx",
        converter="onnx",
    ),
    "tensorrt": Registration(
        factory="hwprof.devices.nvidia.tensorrt:TensorrtAdapter",
        runtime="tensorrt",
        hardware=NVIDIA_GPU,
        package="tensorrt",
        distribution="tensorrt",
        install="pip install 'hwprof[tensorrt]'",
        check="hwprof.devices.nvidia.cuda_presence:timing_lacks",
        memory=GPU_MEMORY,
        converter="onnx",
    ),
    "null": Registration(
        factory="hwprof.devices.null:NullAdapter", runtime="scripted", hardware="scripted"
    ),
}


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """A registered device: whether it can be used here and, if not, what would help."""

    name: str
    available: bool
    reason: str
    runtime: str
    runtime_version: str | None
    hardware: str | None
    emulated: bool = False
    """Whether an emulator is known to play it, so that its times mean nothing."""

    def to_row(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof devices --json``."""
        return asdict(self)


def registrations() -> dict[str, Registration]:
    """Return every registered device: the built-in ones, then those of other packages."""
    found = dict(BUILTIN)
    checks = {entry.name: entry.value for entry in metadata.entry_points(group=CHECK_ENTRY_POINTS)}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        owner = entry.dist.name if entry.dist is not None else ""
        found.setdefault(
            entry.name,
            Registration(
                factory=entry.value,
                runtime=owner,
                hardware="",
                package=entry.module.partition(".")[0],
                distribution=owner,
                install=f"pip install {owner}",
                check=checks.get(entry.name, ""),
            ),
        )
    return found


def device_ref(device: str, options: DeviceOptions) -> DeviceRef:
    """Return how a worker opens a device. Nothing is opened or imported by it.

    Args:
        device: the name of an adapter, or ``NAME@ssh://user@host:port``, ``NAME@adb://SERIAL``
            or ``NAME@BOARD`` with a board that ``hwprof devices add`` remembered.
        options: the axes of every adapter.

    Raises:
        PlanError: there is no such device, or no such board.
    """
    from hwprof.measure.records import DeviceRef

    known = registrations()
    name, separator, place = device.partition("@")
    if name not in known:
        # A close match only: "gpu" is no slip for "cpu".
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PlanError(
            f"unknown device {name!r}: {hint}expected one of {', '.join(known)} "
            "(see `hwprof devices`)"
        )
    found = known[name]
    ref = DeviceRef(
        name=device,
        factory=found.factory,
        options=options,
        memory=found.memory,
        refuses=found.refuses,
    )
    if not separator:
        return replace(ref, check=found.check)
    from hwprof.devices.remote.remembered import address_of

    return replace(ref, launcher=REMOTE_LAUNCHER, address=address_of(place).url)


def open_device(ref: DeviceRef) -> DeviceAdapter:
    """Open a device in this process. Measuring opens it in workers instead.

    Raises:
        PlanError: it is on another machine.
        DeviceUnavailableError: it is not installed or not there.
    """
    from hwprof.measure.worker import open_adapter

    if ref.address is not None:
        raise PlanError(
            f"{ref.name!r} is on another machine, so it cannot be opened in this process: measure "
            f"on it, or open {ref.name.partition('@')[0]!r} here"
        )
    return open_adapter(ref)


def list_devices() -> list[DeviceStatus]:
    """Return the state of every registered device, without importing a runtime.

    Devices on other machines that were given a name follow; nothing is connected to.
    """
    from hwprof.devices.remote.remembered import remembered

    boards = [_board_status(name, address) for name, address in remembered().items()]
    return [*(_status(name, found) for name, found in registrations().items()), *boards]


def _board_status(name: str, address: Address) -> DeviceStatus:
    from hwprof.devices.remote.address import CLIENTS

    program = address.link
    available = shutil.which(program) is not None
    missing = f"{program} is not installed here: install it ({CLIENTS[program]} on Debian)"
    return DeviceStatus(
        name=f"NAME@{name}",
        available=available,
        reason="" if available else missing,
        runtime=program,
        runtime_version=None,
        hardware=f"{address.url}; see hwprof devices check {name}",
        emulated=address.emulated,
    )


def _status(name: str, found: Registration) -> DeviceStatus:
    runtime, distribution, available = found.runtime, found.distribution, _importable(found.package)
    if not available and found.instead is not None and _importable(found.instead[0]):
        runtime, distribution, available = found.instead[1], found.instead[1], True
    reason = "" if available else f"{found.package} is not installed: run {found.install}"
    # First what is hardest to mend: without a GPU no package would help.
    if found.check and (missing := lack(found.check)):
        reason, available = missing, False
    return DeviceStatus(
        name=name,
        available=available,
        reason=reason,
        runtime=runtime,
        runtime_version=installed_version(distribution) if available else None,
        hardware=_hardware(found),
    )


def _importable(package: str) -> bool:
    return not package or util.find_spec(package) is not None


def installed_version(distribution: str) -> str | None:
    """Return the version of a package by pip's name of it; None where it is not installed."""
    try:
        return metadata.version(distribution) if distribution else None
    except metadata.PackageNotFoundError:
        return None


def _hardware(found: Registration) -> str | None:
    if found.hardware != THIS_CPU:
        return found.hardware or None
    from hwprof.measure.machine import cpu_model

    return cpu_model()


make_callable(__name__)
