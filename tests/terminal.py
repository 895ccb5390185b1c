"""A program on a terminal, as a user has it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess


def run_on_a_terminal(program: list[str]) -> tuple[int, bytes, bytes]:
    """Run a program whose stderr is a terminal, and whose stdout is not; gives its exit code, and what came of both."""
    terminal, their_end = pty.openpty()
    child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=their_end)
    os.close(their_end)
    shown = b""
    # A terminal whose other end was closed gives an error, and not an end of file.
    with contextlib.suppress(OSError):
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    printed, _ = child.communicate()
    return child.returncode, printed, shown
