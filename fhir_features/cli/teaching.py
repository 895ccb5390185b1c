"""Help that teaches: each command ends with examples, as one would type them. A test runs every one."""

from __future__ import annotations

import click

# More than any first sentence has: click cuts them off at the end of a line.
_WHOLE = 1_000


class Group(click.Group):
    """A group of commands whose help has the whole first sentence of each."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, with what each does."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(_WHOLE)) for name, each in commands if each is not None])


def examples(*lines: str) -> str:
    """The epilog of a command: its examples, each a line of shell, perhaps with a comment."""
    # https://click.palletsprojects.com/en/stable/documentation/#escaping-click-s-wrapping
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
