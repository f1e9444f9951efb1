"""What every executable on a GPU does with inputs that are given to it."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.devices.host import max_rel_error
from hwprof.devices.nvidia.cuda_device import GpuExecutable
from hwprof.errors import ModelError
from hwprof.testing import TOLERANCE, block, reference_outputs


def assert_filled_and_put_back(executable: GpuExecutable, refusal: str) -> None:
    """Given inputs are run, the seeded ones are there again, and other shapes are refused.

    Args:
        executable: of the block ``mbconv``.
        refusal: a pattern of what it says to other shapes, even to one that could be stretched.
    """
    own = executable.outputs()[0]
    given = {"input": np.random.default_rng(5).standard_normal((1, 8, 8, 8), dtype=np.float32)}
    expected = reference_outputs(block("mbconv"), given)
    assert max_rel_error(executable.outputs(given), expected) <= TOLERANCE
    np.testing.assert_array_equal(executable.outputs()[0], own)
    with pytest.raises(ModelError, match=refusal):
        executable.outputs({"input": np.zeros((1, 8, 1, 1), np.float32)})
