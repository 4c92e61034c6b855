"""The `tidemill` command. Each subcommand is imported only when it runs, so that help and errors come at once."""

import os
import sys
from importlib import import_module

import click

from tidemill import __version__
from tidemill.core import TidemillError

COMMANDS = {
    "init": ("init:init", "Make a project from a CSV file: trained, gated, ready to serve."),
    "run": ("start:run", "One pass of the loop: build, train, gate, promote; says what was cached and why the rest ran."),
    "replay": ("history:replay", "Replay the past: a model kept in the loop against the same model left alone."),
    "policy": ("history:policy", "`policy compare`: replay the same history under several policies."),
    "up": ("serve:up", "Serve the champion and the status page."),
    "status": ("show:status", "Deployments, versions, alerts, the last retraining."),
    "lineage": ("show:lineage", "The way back from a prediction, a version or a dataset to its sources."),
    "why": ("show:why", "Why a version serves, a candidate was refused, or a step ran."),
    "approve": ("start:approve", "Agree that a version may go live."),
    "doctor": ("show:doctor", "Check the ledger, the blobs and the environment."),
}


class Lazy(click.Group):
    """A group whose help needs no subcommand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        place, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(f"tidemill.cli.{place}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tidemill")
@click.option("-C", "--folder", default=".", show_default=True, help="The project's folder.")
@click.option("-v", "--verbose", is_flag=True, help="Say everything; show tracebacks.")
@click.pass_context
def tidemill(ctx: click.Context, folder: str, verbose: bool) -> None:
    """Tidemill closes the MLOps loop: data, features, training, gates, deployment, monitoring, retraining."""
    ctx.obj = {"folder": folder, "verbose": verbose}


def main() -> None:
    """Entry point: our own errors become four lines and an exit code, Ctrl-C says that nothing is lost."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait starve whoever shares the cores
    verbose, as_json = "-v" in sys.argv or "--verbose" in sys.argv, "--json" in sys.argv
    try:
        tidemill(standalone_mode=False)
    except TidemillError as error:
        if verbose:
            raise
        _say(error, as_json)
        sys.exit(error.code)
    except click.ClickException as error:
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
        click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
