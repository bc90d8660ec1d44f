"""The command line: parses, calls, prints. What each command does is in the room it calls.

`runs.py` has the commands on recipes and runs, `launch.py` the one for clusters, `corpus.py` those on documents,
`models.py` those on models and `recipes.py` those on recipe files; `COMMANDS` is the list that `glassbox --help` shows.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from glassbox import __version__
from glassbox.cli import corpus, launch, models, recipes, runs
from glassbox.console import err, out
from glassbox.errors import GlassboxError

COMMANDS: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("run", runs.run),
    ("launch", launch.launch),
    ("status", runs.status),
    ("verify", runs.verify),
    ("prune", runs.prune),
    ("plan", runs.plan),
    ("report", runs.report),
    ("inspect", runs.inspect),
    ("explain", corpus.explain),
    ("sheet", corpus.sheet),
    ("score", models.score),
    ("chat", models.chat),
    ("serve", models.serve),
    ("import", models.import_),
    ("export", models.export_),
    ("recipes", recipes.recipes),
    ("init", recipes.init),
    ("schema", recipes.schema),
)
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for _name, _command in COMMANDS:
    app.command(_name)(_command)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """glassbox: raw web pages and code to a served reasoning model, every step on record."""
    if version:
        out.print(f"glassbox {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: run the command; an error is one sentence and an exit code, a traceback only with --debug."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app(["--debug"] * debug + [a for a in arguments if a != "--debug"], standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except GlassboxError as error:
        _fail(error, error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        _fail(error, 130, debug, "stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(error, 1, debug, f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence instead of a traceback
        if hasattr(error, "format_message"):  # a wrong command or option, whatever parser Typer builds on
            _fail(error, 2, debug, error.format_message())
        sentence = f"unexpected failure ({type(error).__name__}: {error}); `--debug` shows the traceback"
        _fail(error, 1, debug, sentence)


def _fail(error: BaseException, code: int, debug: bool, sentence: str | None = None) -> None:
    if debug:
        import traceback

        traceback.print_exception(error)
    err.print(f"glassbox: {sentence or error}")
    sys.exit(code)
