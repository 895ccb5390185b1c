"""Help that teaches: each command ends with examples, as one would type them. A test runs every one."""

from __future__ import annotations

import click

from fhir_features.errors import UsageError, did_you_mean

# More than any first sentence has: click cuts them off at the end of a line.
_WHOLE = 1_000


class Group(click.Group):
    """A group of commands whose help has the whole first sentence of each, and which says what may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named. Raises UsageError for an unknown one."""
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            meant = did_you_mean(name, self.list_commands(ctx))
            raise UsageError(f"there is no command '{ctx.command_path} {name}': {meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, with what each does."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(_WHOLE)) for name, each in commands if each is not None])


def examples(*lines: str) -> str:
    """The epilog of a command: its examples, each a line of shell, perhaps with a comment."""
    # https://click.palletsprojects.com/en/stable/documentation/#escaping-click-s-wrapping
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
