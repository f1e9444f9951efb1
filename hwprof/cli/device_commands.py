"""``devices``: what can be measured on, here and on other machines."""

from __future__ import annotations

from typing import Annotated

import typer

from hwprof.cli import options as opt
from hwprof.cli.output import print_json, print_text, say

devices = typer.Typer(
    help="List the devices. Says whether each is usable here and, if not, what would fix it.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@devices.callback()
def _devices(context: typer.Context, json_: opt.Json = False) -> None:
    if context.invoked_subcommand is None:
        list_(json_)
    elif json_:
        raise typer.BadParameter(
            "--json stands before the command: put it behind, as in hwprof devices list --json"
        )


@devices.command("list")
def list_(json_: opt.Json = False) -> None:
    """List the devices, here and on machines that were named."""
    from hwprof import api
    from hwprof.reports import text

    rows = api.devices()
    print_json(rows.to_json()) if json_ else print_text(text.devices_table(rows.to_json()))


@devices.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it, as in --device cpu@NAME.")],
    url: Annotated[str, typer.Argument(help="ssh://user@host:port or adb://SERIAL.")],
) -> None:
    """Remember a device on another machine by a name.

    Called again with the same name it replaces the address.
    """
    from hwprof import api

    address = api.add_device(name, url)
    say(f"{name} is {address}; see what is there with: hwprof devices check {name}")


@devices.command("check")
def check(
    place: Annotated[str, typer.Argument(help="A remembered name, or an address.")],
    json_: opt.Json = False,
) -> None:
    """Say what another machine has.

    Its cores, clocks, temperature, runtimes and free space.
    """
    from hwprof import api
    from hwprof.reports import text

    found = api.check_device(place).to_json()
    print_json(found) if json_ else print_text(text.board_text(found))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(devices, name="devices")
