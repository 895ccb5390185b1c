"""Help that teaches: each command ends with examples, as one would type them. A test runs every one."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """The epilog of a command: its examples, each a line of shell, perhaps with a comment."""
    # https://click.palletsprojects.com/en/stable/documentation/#escaping-click-s-wrapping
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
