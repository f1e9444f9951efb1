"""Workloads as files for a device: built here, named by their bytes, copied once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hwprof.devices import registrations
from hwprof.errors import CompileError, ModelError
from hwprof.graph import to_onnx, workload_graph
from hwprof.measure.records import DeviceOptions, Precision
from hwprof.space.own import BLOCKS_MODULE, own_definition
from hwprof.space.pieces import ChainPiece
from hwprof.workload import Workload, model_files

IN_FLOAT32 = ("fp32", "tf32")
"""Precisions of one and the same file: how float32 is multiplied is told to the device, not in it."""


def _write_onnx(workload: Workload, options: DeviceOptions) -> bytes:
    if options.precision not in IN_FLOAT32:
        raise CompileError(
            f"networks and blocks go there as ONNX in fp32, not {options.precision!r}: leave "
            "--precision out, or give a model file that holds the precision itself"
        )
    return to_onnx(workload_graph(workload), seed=workload.seed, batch=options.batch)


def _write_tflite(workload: Workload, options: DeviceOptions) -> bytes:
    from hwprof.devices.litert.tflite import write_model

    return write_model(workload, options)


_WRITERS: Mapping[str, Callable[[Workload, DeviceOptions], bytes]] = {
    "onnx": _write_onnx,
    "tflite": _write_tflite,
}


class Artifacts:
    """What the workloads of one device are on the machine that it is on.

    Networks and blocks become files of the format that the adapter reads, so that the device
    needs the runtime and nothing that builds models. An adapter that reads no file builds them
    there.

    Args:
        device: ``NAME@…``.
        options: batch size and precision of networks and blocks.
    """

    def __init__(self, device: str, options: DeviceOptions) -> None:
        self._device, self._options = device, options
        self._format = registrations()[device.partition("@")[0]].model_format
        self._there: dict[str, Workload] = {}

    @property
    def writes_files(self) -> bool:
        """Whether networks and blocks become files, in the precision that is asked for."""
        return bool(self._format)

    @property
    def precision_there(self) -> Precision:
        """What the device is asked for; of a file that holds its precision, to run it as it is."""
        asked = self._options.precision
        return "fp32" if self.writes_files and asked not in IN_FLOAT32 else asked

    @property
    def facts(self) -> Mapping[str, str]:
        """What the files are made with here and the device cannot know, for its key."""
        if self._format != "tflite":
            return {}
        from hwprof.devices.litert.tflite_int8 import quantizer_facts

        return quantizer_facts(self._options.precision)

    def there(self, workload: Workload) -> Workload:
        """Return the workload with the name of its file in place of what it was made from.

        Raises:
            CompileError: it cannot go there.
            ModelError: its file cannot be read.
        """
        known = self._there.get(workload.key)
        if known is None:
            known = self._there[workload.key] = self._named(workload)
        return known

    def key_there(self, key: str) -> str:
        """Return the key that a workload has on the device."""
        known = self._there.get(key)
        return key if known is None else known.key

    def content(self, workload: Workload) -> bytes:
        """Return the bytes of the workload's file.

        Raises:
            ModelError: it cannot be read.
        """
        if workload.path is not None:
            try:
                return Path(workload.path).read_bytes()
            except OSError as error:
                raise ModelError(
                    f"cannot read the model {workload.path!r}: {error.strerror or error}"
                ) from error
        return _WRITERS[self._format](workload, self._options)

    def _named(self, workload: Workload) -> Workload:
        if workload.target is not None:
            raise CompileError(
                f"{workload.target!r} is Python code of this machine, and nothing but models goes "
                f"to {self._device}: export it to .onnx"
            )
        if workload.path is None and not self._format:
            if own := _known_here_alone(workload):
                raise CompileError(
                    f"{own} is in a file of this machine, and {self._device} builds networks and "
                    f"blocks there: measure with a device that is sent files ({_sent_files()}), or "
                    "run hwprof on that machine with the space's file"
                )
            return workload
        if workload.path is not None and self._options.precision not in IN_FLOAT32:
            raise CompileError(
                f"{workload.label!r} is run as it is, not as {self._options.precision!r}: leave "
                "--precision out, and give a model file that holds the precision itself"
            )
        content = self.content(workload)
        if workload.path is not None and (beside := model_files(workload.path)[1:]):
            raise CompileError(
                f"{workload.label!r} keeps weights in {', '.join(f.name for f in beside)}, and one "
                f"file goes to {self._device}: write it as one "
                "(onnx.save(onnx.load(MODEL), ONE_FILE))"
            )
        digest = hashlib.sha256(content).hexdigest()
        if workload.path is not None and workload.content not in (None, digest):
            raise ModelError(f"{workload.path!r} has changed since it was named: measure it again")
        suffix = self._format if workload.path is None else Path(workload.path).suffix.strip(".")
        return replace(
            workload, arch=None, piece=None, path=f"{digest}.{suffix.lower()}", content=digest
        )


def _known_here_alone(workload: Workload) -> str:
    """Say which space or block of the user's own files a workload is made of; empty for none."""
    if workload.arch is not None and own_definition(workload.arch.space) is not None:
        return f"the design space {workload.arch.space!r}"
    piece = workload.piece
    parts = piece.pieces if isinstance(piece, ChainPiece) else (piece,)
    own = (p.kind for p in parts if p is not None and type(p).__module__.startswith(BLOCKS_MODULE))
    return next((f"the block {kind!r}" for kind in own), "")


def _sent_files() -> str:
    return ", ".join(name for name, known in registrations().items() if known.model_format)
