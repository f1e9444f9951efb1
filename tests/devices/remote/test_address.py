"""Addresses: what is read, what is refused, what is remembered."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprof.devices import device_ref, list_devices, open_device
from hwprof.devices.remote.address import Address, parse_address
from hwprof.devices.remote.remembered import address_of, config_path, remember, remembered
from hwprof.devices.remote.ssh import SshTransport
from hwprof.errors import PlanError
from hwprof.measure.records import DeviceOptions


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://pi@10.0.0.2:2222", Address(link="ssh", user="pi", host="10.0.0.2", port=2222)),
        ("ssh://board", Address(link="ssh", host="board")),
        (
            "ssh://u@[fe80::1%eth0]:22",
            Address(link="ssh", user="u", host="[fe80::1%eth0]", port=22),
        ),
        ("adb://192.168.1.5:5555", Address(link="adb", host="192.168.1.5:5555")),
        ("adb://emulator-5554", Address(link="adb", host="emulator-5554", emulated=True)),
        (
            "adb://emulator-5554?emulated=no",
            Address(link="adb", host="emulator-5554", emulated=True),
        ),
        (
            "ssh://h?python=/opt/py/bin/python3&cpus=4-7&emulated=yes&reboot=yes",
            Address(
                link="ssh",
                host="h",
                python="/opt/py/bin/python3",
                cpus="4-7",
                emulated=True,
                may_reboot=True,
            ),
        ),
    ],
)
def test_addresses_are_read_and_written_again(url: str, expected: Address) -> None:
    assert parse_address(url) == expected
    assert parse_address(parse_address(url).url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "board",
        "http://board",
        "ssh://",
        "ssh://-oProxyCommand=evil",
        "ssh://u@-oProxyCommand=evil",
        "ssh://-u@host",
        "ssh://u@host:0",
        "ssh://u@host:99999",
        "ssh://u@ho st",
        "ssh://u:password@host",
        "ssh://host/path",
        "adb://",
        "adb://-s",
        "adb://a b",
        "adb://a;reboot",
        "ssh://h?python=-c",
        "ssh://h?python=a;b",
        "ssh://h?cpus=x",
        "ssh://h?colour=red",
    ],
)
def test_what_is_no_address_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(PlanError, match="expected") as caught:
        parse_address(url)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_of_ssh(text: str) -> None:
    try:
        address = parse_address(f"ssh://{text}")
    except PlanError:
        return
    command = SshTransport(address).command(["true"])
    place = command[command.index("--") + 1]
    assert not place.startswith("-")
    assert command[-1] == "true"
    assert len(command) == command.index("--") + 3


def test_host_keys_are_always_checked_and_nothing_is_forwarded() -> None:
    command = SshTransport(parse_address("ssh://pi@board:2222")).command(["true"])
    options = [b for a, b in pairwise(command) if a == "-o"]
    assert "StrictHostKeyChecking=yes" in options
    assert "BatchMode=yes" in options
    assert "ForwardAgent=no" in options
    assert "ClearAllForwardings=yes" in options


def test_a_name_stands_for_its_address() -> None:
    remember("pi", "ssh://pi@10.0.0.2:22")
    remember("phone", "adb://SERIAL")
    remember("pi", "ssh://pi@10.0.0.3:22")
    assert {n: a.url for n, a in remembered().items()} == {
        "pi": "ssh://pi@10.0.0.3:22",
        "phone": "adb://SERIAL",
    }
    ref = device_ref("cpu@pi", DeviceOptions(threads=2))
    assert ref.address == "ssh://pi@10.0.0.3:22"
    assert ref.factory == device_ref("cpu", DeviceOptions()).factory
    assert ref.options.threads == 2
    (row,) = [s for s in list_devices() if s.name == "NAME@pi"]
    assert row.runtime == "ssh"


def test_a_remembered_device_is_there_only_with_the_program_that_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember("pi", "ssh://pi@10.0.0.2")
    remember("phone", "adb://SERIAL")
    (tmp_path / "ssh").write_text("")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = {s.name: s for s in list_devices()}
    assert (rows["NAME@pi"].available, rows["NAME@pi"].reason) == (True, "")
    assert not rows["NAME@phone"].available
    assert rows["NAME@phone"].reason == "adb is not installed here: install it (adb on Debian)"


def test_a_device_on_another_machine_is_not_opened_on_this_one() -> None:
    with pytest.raises(PlanError, match=r"is on another machine, .* open 'cpu' here"):
        open_device(device_ref("cpu@ssh://board", DeviceOptions()))


def test_unknown_names_and_adapters_are_named_with_what_is_close() -> None:
    remember("board", "ssh://board")
    with pytest.raises(PlanError, match="did you mean 'board'"):
        address_of("bord")
    with pytest.raises(PlanError, match="unknown device 'cpx'"):
        device_ref("cpx@board", DeviceOptions())
    with pytest.raises(PlanError, match="no name for a device"):
        remember("../board", "ssh://board")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2, "devices": {}}', '{"format": 1}'])
def test_a_damaged_file_of_names_is_named(content: str) -> None:
    config_path().parent.mkdir(parents=True)
    config_path().write_text(content)
    with pytest.raises(PlanError, match=r"devices\.json"):
        remembered()


def test_names_are_kept_as_plain_json() -> None:
    remember("pi", "ssh://pi@10.0.0.2?cpus=0-3")
    assert json.loads(config_path().read_text()) == {
        "format": 1,
        "devices": {"pi": "ssh://pi@10.0.0.2?cpus=0-3"},
    }
