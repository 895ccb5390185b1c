"""The entry point of `fhir-features`, and of `python -m fhir_features`: it minds Ctrl-C before it imports anything that
takes a while."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it at any time with one line and exit code 130."""
    signal.signal(signal.SIGINT, _interrupted)
    from fhir_features.cli import main as run

    run()


def _interrupted(number: int, _: object) -> None:
    """End at once, as a kill would: every command goes on from that. A KeyboardInterrupt does not do: DuckDB takes it
    for a failed query, or waits for ever for that to end, and an import in the middle loses it."""
    # What shows progress has hidden the cursor: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html, DECTCEM.
    shown = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(2, f"{shown}interrupted: run the same command again to go on\n".encode())
    # As `errors.INTERRUPTED`, which may be what is being imported.
    os._exit(128 + number)


if __name__ == "__main__":
    main()
