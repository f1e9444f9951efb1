"""Every adapter against the contract. A new adapter joins by its name in ``DEVICES``."""

from __future__ import annotations

import pytest

from hwprof.devices import device_ref, list_devices
from hwprof.measure.records import DeviceOptions, DeviceRef
from hwprof.testing import DeviceContract

DEVICES = ["null", "cpu", "cpu-torch"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> DeviceRef:
    status = {s.name: s for s in list_devices()}[request.param]
    if not status.available:
        pytest.skip(status.reason)
    return device_ref(request.param, DeviceOptions())


class TestContract(DeviceContract):
    pass
