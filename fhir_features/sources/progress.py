"""How far is a pull? What a source says while it is read, to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable

# Called with the source, what is read of it (a resource type, or "files"), how much was received, and of how much.
Progress = Callable[[str, str, int, int | None], None]


def silent(source: str, what: str, received: int, total: int | None) -> None:
    """Show nothing."""
