"""The Typer application: one function a command, bodies that only translate."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from hwprof.cli.output import INTERRUPTED, discard_output, say

READER_GONE = 141
"""What a shell reports of a program that SIGPIPE ended."""


ORDER = (
    *("quickstart", "devices", "selftest", "bench", "compare", "suite", "spaces", "cost"),
    *("profile", "import", "adapt", "effects", "predict", "reduce", "train", "search", "retime"),
    *("report", "export"),
)


class _Commands(TyperGroup):
    """Ends where Typer would end without a word, or with 1, which here is a regression."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order in which a newcomer needs them."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("\nhwprof: interrupted; call it again (what a folder of --out holds is kept)")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            discard_output()
            raise typer.Exit(READER_GONE) from None
        except EOFError as error:
            raise RuntimeError("something that was read ended too early") from error


app = typer.Typer(
    name="hwprof",
    cls=_Commands,
    help=(
        "Measure what every block of a family of networks costs on a device, "
        "cut the design space down to what suits it, and find the networks that are "
        "the best trade of accuracy against latency."
    ),
    epilog=(
        "Begin with `hwprof quickstart`, or with a model of your own: `hwprof bench model.onnx`. "
        "`hwprof COMMAND --help` explains a command."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"hwprof {version('hwprof')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Common options."""


from hwprof.cli import (
    check_commands,
    compare_commands,
    device_commands,
    inspect_commands,
    profile_commands,
    search_commands,
    suite_commands,
)

device_commands.register(app)
inspect_commands.register(app)
profile_commands.register(app)
search_commands.register(app)
compare_commands.register(app)
suite_commands.register(app)
check_commands.register(app)
