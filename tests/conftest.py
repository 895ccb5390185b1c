"""Being here puts this folder on the path, so that tests of all folders can import `lake_rows` and `reference`; and
nothing that is tested reaches another machine (`no_egress`)."""

from __future__ import annotations

import os
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # A core for each of the workers: with threads of two on both, the whole suite took 2.5 times the CPU time.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

_GUARD = Path(__file__).parent / "no_egress"
_DENIED = Path(tempfile.mkdtemp(prefix="egress-")) / "denied"

os.environ["EGRESS_DENIED"] = str(_DENIED)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_GUARD), os.environ.get("PYTHONPATH")]))
runpy.run_path(str(_GUARD / "sitecustomize.py"))


@pytest.fixture(autouse=True)
def nothing_reaches_another_machine() -> Iterator[None]:
    """Fails a test in whose time another machine was to be reached, even where the error went unseen."""
    yield
    if _DENIED.exists():
        denied = _DENIED.read_text()
        _DENIED.unlink()
        raise AssertionError(f"another machine was to be reached: {denied}")
