"""Few networks of mobile-mini: two candidates a slot, and names that fit a line."""

from __future__ import annotations

from hwprof.space import Architecture, Slot

FEW = {
    Slot(unit, layer): ("mbconv_k3_e3", "mbconv_k5_e3") for unit in range(3) for layer in range(2)
}


def mini(*units: tuple[str, ...]) -> Architecture:
    return Architecture(space="mobile-mini", resolution_px=32, units=units)


K3, K5, K7 = ("mbconv_k3_e3",), ("mbconv_k5_e3",), ("mbconv_k7_e3",)
