"""The `emseg` command itself; a module beside it for each family of verbs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from emseg.errors import STOPPED, STOPPED_SENTENCE, ending

if TYPE_CHECKING:
    pass


class _Commands(TyperGroup):
    """Commands that Ctrl-C ends with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(f"emseg: {STOPPED_SENTENCE}", file=sys.stderr)
            raise typer.Exit(STOPPED) from None


app = typer.Typer(
    cls=_Commands,
    help="Benchmark platform for segmenting neuronal membranes in electron-microscopy sections.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Bring labelled sections in, and check them.", no_args_is_help=True)
app.add_typer(data_app, name="data")
tune_app = typer.Typer(help="Search settings with Optuna, and take over or report the best.", no_args_is_help=True)
app.add_typer(tune_app, name="tune")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: KEY=VALUE.")]
SettingsFile = Annotated[Path, typer.Option("--settings", help="Settings to use.")]
Task = Annotated[str | None, typer.Option(help="Task whose versions are meant; default: the only one of the store.")]
PARAMS = Path("params.yaml")
Wide = Annotated[bool, typer.Option("--wide", help="Every column, whatever the width of the terminal.")]


def main() -> None:
    """Run the command; bad input becomes one sentence and exit code 2, work that failed one and exit code 1."""
    try:
        app()
    except Exception as error:
        if (known := ending(error)) is None:
            raise
        print(f"emseg: {known[0]}", file=sys.stderr)
        sys.exit(known[1])


def warn(sentence: str) -> None:
    """Tell a person, on stderr."""
    print(f"emseg: {sentence}", file=sys.stderr)


def require_suffix(path: Path, *suffixes: str) -> None:
    """Refuse a name that says another format than those that are written.

    Raises:
        InputError: it ends with none of `suffixes`.
    """
    from emseg.errors import InputError

    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path} must end with {' or '.join(suffixes)}: no other format is written; rename it")
