"""The command line: parse, call the SDK, print. Each command is a module here, loaded only when it is used.

Data goes to stdout, everything else to stderr. A user's mistake is one line and an exit code (`fhir_features.errors`).
"""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from pathlib import Path

import click
from click.shell_completion import add_completion_class

from fhir_features.cli.completing import Bash
from fhir_features.cli.teaching import Group, examples
from fhir_features.errors import FAULT, INTERRUPTED, FhirFeaturesError

# In the order of the road that data takes; the name of a command is the name of its module, but for hyphens.
COMMANDS = (
    "init",
    "doctor",
    "status",
    "pull",
    "normalize",
    "quarantine",
    "reconcile",
    "features",
    "build",
    "get",
    "reproduce",
    "explain",
    "audit-leakage",
    "materialize",
    "export-meds",
    "parity",
    "report",
    "ontology",
    "verify",
    "gc",
    "compact",
    "rebuild",
)


class _Commands(Group):
    """A group that imports the module of a command when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"fhir_features.cli.{name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "fhir-features init my-store --example  # a project with invented patients, then in it:",
        "fhir-features pull",
        "fhir-features normalize",
        "fhir-features get admissions --features diabetes --output training.parquet",
    ),
)
@click.option(
    "--config",
    default="fhir_features.toml",
    envvar="FHIR_FEATURES_CONFIG",
    show_default=True,
    help="The configuration file, or the folder that it is in.",
)
@click.version_option(package_name="fhir-features")
@click.pass_context
def cli(ctx: click.Context, config: str) -> None:
    """A FHIR-native feature store: what did we know about patient P at time T?"""
    ctx.obj = config


add_completion_class(Bash)


def main() -> None:
    """Run a command, and end with its exit code. The entry point is `fhir_features.__main__`."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        cli.main(prog_name="fhir-features", standalone_mode=False)
    except FhirFeaturesError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        print(f"error: {_wrong_use(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        print(f"error: {_fault(error)}", file=sys.stderr)
        sys.exit(FAULT)


def _wrong_use(error: click.ClickException) -> str:
    """What click says of a mistake, in one line, and where is said what is right."""
    said = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    # Where it says what may have been meant, that is what to do.
    if context is None or said.endswith(("?", ")")):
        return said
    return f"{said}: see `{context.command_path} --help`"


def _fault(error: Exception) -> str:
    """What nobody has foreseen, in one line: without its own words, since those of other packages can quote a row."""
    from importlib.metadata import version

    frames = reversed(traceback.extract_tb(error.__traceback__))
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    name = type(error).__name__
    return f"{name}, a fault of fhir-features {version('fhir-features')}: please report this line; at {places}"
