"""The entry point of the command line ``rft``, which is also installed as the kubectl plugin ``kubectl-rft``.

The module of a command is imported only when the command is called, so that ``rft`` starts quickly.
"""

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

BEFORE = {
    "new": "new",
    "import": "import_",
    "validate": "validate",
    "explain": "explain",
    "suggest": "suggest",
    "plan": "plan",
    "grade": "grade",
    "env": "env",
    "run": "run",
    "submit": "submit",
}
DURING = {
    "get": "get",
    "watch": "watch",
    "logs": "logs",
    "suspend": "lifecycle",
    "resume": "lifecycle",
    "cancel": "lifecycle",
    "rerun": "rerun",
}
RESULTS = {
    "curve": "curve",
    "samples": "samples",
    "report": "report",
    "compare": "compare",
    "ui": "ui",
    "download": "download",
    "evaluate": "evaluate",
    "export": "export",
    "push": "push",
    "serve": "serve",
}
OTHERS = {"completion": "completion"}
COMMANDS = {**BEFORE, **DURING, **RESULTS, **OTHERS}
"""The commands of ``rft``. The key is the name of a command, and the value is its module in
``rft_cli.commands``.

Each of these modules has a function or a group of subcommands with the name of its command. For ``import``,
the name is ``import_``."""

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """The group of all commands of ``rft``, for typer. It imports the module of a command only when the
    command is called.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands of ``rft``, in the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the command ``cmd_name`` and return it. Return None if no command has this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found = function(cmd_name)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name, context_settings=HELP_OPTIONS)(found)
        return typer.main.get_command(single)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command for ``args``, the words of the command line after ``rft`` and its options.

        If the first word is not a command, end with an error that proposes a similar name.
        """
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            meant = f" Did you mean {close[0]}?" if close else f" Commands: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command '{args[0]}'.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one line about each command into the text of ``rft --help``."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in COMMANDS])


def function(name: str) -> Callable[..., Any] | typer.Typer:
    """Import the module of the command ``name``. Return the command's function, or the group of its
    subcommands.
    """
    module = importlib.import_module(f"rft_cli.commands.{COMMANDS[name]}")
    found: Callable[..., Any] | typer.Typer = getattr(module, f"{name}_" if name == "import" else name)
    return found


def summary(name: str) -> str:
    """Return the sentence about the command ``name`` in the help. The command's module is not imported.

    The sentence is the first one in the docstring of the command's function. A group of subcommands, such as
    ``env``, has no function. For a group, it is the text after the colon in the first sentence of the
    module's docstring.
    """
    spec = importlib.util.find_spec(f"rft_cli.commands.{COMMANDS[name]}")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = (each for each in tree.body if isinstance(each, ast.FunctionDef))
    wanted = next((each for each in functions if each.name.rstrip("_") == name), None)
    docstring = ast.get_docstring(tree if wanted is None else wanted) or ""
    text = " ".join(docstring.partition("\n\n")[0].split())
    sentence = text.partition(". ")[0].rstrip(".")
    return sentence if wanted is not None else sentence.partition(": ")[2].capitalize()


class App(typer.Typer):
    """The typer application of ``rft``. After an unexpected error it prints the traceback and exits with
    code 1.

    A traceback may contain any text, so its control characters are replaced by visible escape codes.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line and run the command in it. The arguments are passed on to typer."""
        try:
            return super().__call__(*args, **kwargs)
        except Exception:
            import traceback

            from rft_cli.render.console import err

            err().print(traceback.format_exc())
            sys.exit(1)


app = App(
    cls=Commands,
    help="Reinforcement fine-tuning of language models: check, run and watch RFTJobs.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    from rft_cli.render.console import write

    try:
        write(f"rft {version('rft-operator')}")
    except PackageNotFoundError:
        write("rft of a checkout that is not installed")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Accept the options that come before a command, such as ``--version``."""
    del version


if __name__ == "__main__":
    app()
