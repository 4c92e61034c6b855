"""The `tidemill` command: `commands` says what there is to run, `main` runs it and tells what went wrong."""

import os
import sys
from contextlib import nullcontext, redirect_stdout

import click

from tidemill.cli.commands import tidemill
from tidemill.cli.plain import plain
from tidemill.core import TidemillError


def main() -> None:
    """Entry point: our own errors become four lines and an exit code, Ctrl-C says that nothing is lost."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait starve whoever shares the cores
    verbose, as_json = "-v" in sys.argv or "--verbose" in sys.argv, "--json" in sys.argv
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():  # what a project's file or a model prints is no part of the object
            tidemill(standalone_mode=False)
    except TidemillError as error:
        if verbose:
            raise
        _say(error, as_json)
        sys.exit(error.code)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and any(error.option_name in one.opts for one in tidemill.params):
            error = click.UsageError(f"{error.option_name} stands before the command: tidemill {error.option_name} …", error.ctx)
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nstopped; what was done is kept, and the same command goes on from there", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _say(error: TidemillError, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(error.data()).decode())
    else:
        click.echo(click.style("error: ", fg="red", bold=True) + plain(str(error)), err=True)
