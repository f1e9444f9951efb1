"""The frame of a ``.tflite`` file: tensors, constants and operators, packed by LiteRT's schema.

The object API that ``ai-edge-litert`` ships is used, so that the layout is the runtime's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 3
IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
ALIGNMENT = 16
"""Of constant data, in bytes: the schema asks for it, its Python packer forgets it."""

_LAST_DEPRECATED_CODE = 127
"""Operator codes once were a byte; readers of that time look into the old field."""


class TfliteFile:
    """A model with one subgraph and one signature; tensors are known by their index.

    Raises:
        MissingExtraError: ai-edge-litert, which brings the schema, is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            from ai_edge_litert import schema_py_generated as schema
        except ImportError as error:
            raise MissingExtraError("ai-edge-litert", "tflite", "writing a .tflite file") from error
        self.schema: Any = schema
        self._name = name
        self._types = {
            np.dtype(np.float32): schema.TensorType.FLOAT32,
            np.dtype(np.int32): schema.TensorType.INT32,
        }
        # Buffer 0 is the empty one, by the format's convention: tensors without data share it.
        self._buffers: list[Any] = [schema.BufferT()]
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._constants: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int]) -> int:
        """Add a float32 tensor that an operator or the user fills; return its index."""
        return self._add_tensor(name, shape, np.dtype(np.float32), buffer=0)

    def constant(self, name: str, array: NDArray[Any]) -> int:
        """Add a constant (float32 or int32), or return the one of that name."""
        if name not in self._constants:
            self._buffers.append(_AlignedBuffer(self.schema, array))
            index = self._add_tensor(name, array.shape, array.dtype, len(self._buffers) - 1)
            self._constants[name] = index
        return self._constants[name]

    def operator(self, code: str, inputs: Sequence[int], output: int, options: Any = None) -> None:
        """Append an operator.

        Args:
            code: its name in the schema's ``BuiltinOperator``.
            inputs: indices of its inputs.
            output: index of its output.
            options: the schema's object of its options, where it has some.
        """
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self._operators.append(operator)

    def to_bytes(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """Return the file; ``inputs`` and ``outputs`` are the signature's names of tensors."""
        import flatbuffers

        schema = self.schema
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
            name=self._name,
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name=n, tensorIndex=i) for n, i in inputs.items()],
            outputs=[schema.TensorMapT(name=n, tensorIndex=i) for n, i in outputs.items()],
            signatureKey=SIGNATURE,
        )
        model = schema.ModelT(
            version=VERSION,
            operatorCodes=[self._operator_code(code) for code in self._codes],
            subgraphs=[subgraph],
            description="hwprof",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(sum(b.n_bytes for b in self._buffers[1:]) + 4096)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _operator_code(self, code: str) -> Any:
        number = getattr(self.schema.BuiltinOperator, code)
        return self.schema.OperatorCodeT(
            builtinCode=number, deprecatedBuiltinCode=min(number, _LAST_DEPRECATED_CODE)
        )

    def _add_tensor(
        self, name: str, shape: Sequence[int], dtype: np.dtype[Any], buffer: int
    ) -> int:
        tensor = self.schema.TensorT(
            shape=list(shape), type=self._types[dtype], buffer=buffer, name=name, hasRank=True
        )
        self._tensors.append(tensor)
        return len(self._tensors) - 1


class _AlignedBuffer:
    """Packs like the schema's ``BufferT``, but with its data aligned."""

    def __init__(self, schema: Any, array: NDArray[Any]) -> None:
        self._schema = schema
        self._data = np.ascontiguousarray(array)
        self.n_bytes = self._data.nbytes + ALIGNMENT

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's name
        """Write the data, then the table that points to it; return the table's offset."""
        payload, n_bytes = self._data.data.cast("B"), self._data.nbytes
        builder.StartVector(1, n_bytes, ALIGNMENT)
        builder.head -= n_bytes
        builder.Bytes[builder.head : builder.head + n_bytes] = payload
        data = builder.EndVector()
        self._schema.BufferStart(builder)
        self._schema.BufferAddData(builder, data)
        return int(self._schema.BufferEnd(builder))
