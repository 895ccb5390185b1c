"""The commands as `--help` shows them, in one page. Run this file to write docs/reference/cli.md."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from fhir_features.cli import COMMANDS, cli

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
INTRODUCTION = r"""# Commands

Generated from the code: do not edit. `fhir-features COMMAND --help` says the same; `python -m fhir_features` is the same
program.

Data goes to stdout, everything else to stderr; `--json` wherever a table is printed. What ends a command is told by its
[exit code](exit-codes.md). Every command reads [the configuration](configuration.md) in the folder that it runs in, or
the one that `--config`, before the command, or `$FHIR_FEATURES_CONFIG` names.

Long commands show how far they are, since when and how fast, on a terminal; and everywhere, on stderr, one line when
they have ended: `verify: 33 files of 508.1 kB, 0 damaged, in 2.1 s (16/s)`. Ctrl-C ends each of them at once, with code
130, and the same command goes on. What `--json` prints is said with each command: a list of objects for a table, an
object for a single result; instants in ISO 8601, nothing as null.

Commands, options, and the names of sources, feature views, features, spines and ontologies complete with the tab key,
by [click's own completion](https://click.palletsprojects.com/en/stable/shell-completion/); `features.py` is read for
them, and not run:

- bash: `eval "$(_FHIR_FEATURES_COMPLETE=bash_source fhir-features)"`, added to `~/.bashrc`
- zsh: `eval "$(_FHIR_FEATURES_COMPLETE=zsh_source fhir-features)"`, added to `~/.zshrc` after
  `autoload -U compinit; compinit`
- fish: `_FHIR_FEATURES_COMPLETE=fish_source fhir-features | source`, added to
  `~/.config/fish/completions/fhir-features.fish`
"""


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name as it is typed, those of groups with the name of the group."""
    for name in COMMANDS:
        command = importlib.import_module(f"fhir_features.cli.{name.replace('-', '_')}").command
        if isinstance(command, click.Group):
            for each in command.list_commands(click.Context(command)):
                yield f"{name} {each}", command.commands[each]
        else:
            yield name, command


def written() -> str:
    """The page as it is to be."""
    rows = [f"| [`{name}`](#{_anchor(name)}) | {summary(command)} |" for name, command in leaves()]
    table = ["| command | what it does |", "| --- | --- |", *rows]
    sections = [_section(name, command) for name, command in leaves()]
    return "\n".join([INTRODUCTION, *table, "", *sections]).rstrip() + "\n"


def summary(command: click.Command) -> str:
    """The first sentence of a command's help, in one line."""
    first = inspect.cleandoc(command.help or "").split("\n\n")[0]
    return " ".join(first.split())


def examples(command: click.Command) -> list[str]:
    """The lines of a command's examples, as they are typed."""
    lines = (command.epilog or "").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("fhir-features ")]


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"fhir-features {name}")
    usage = " ".join(["fhir-features", name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", f"```text\n{usage}\n```", inspect.cleandoc(command.help or "")]
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        rows = [f"| `{_cell(_option(each))}` | {_cell(_meaning(each))} |" for each in options]
        parts.append("\n".join(["| option | |", "| --- | --- |", *rows]))
    if shown := examples(command):
        parts.append("```sh\n" + "\n".join(shown) + "\n```")
    return "\n\n".join(parts) + "\n"


def _option(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.make_metavar(click.Context(cli))}"


def _meaning(option: click.Option) -> str:
    said = [option.help or ""]
    if option.required:
        said.append("Required.")
    if option.show_default and not option.is_flag:
        said.append(f"Default: {option.default}.")
    return " ".join(said)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
