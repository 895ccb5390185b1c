"""DuckDB has as many threads as the process may use cores, which may be fewer than there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fhir_features.cores import cores

THREADS = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from pathlib import Path
from fhir_features import lake
from fhir_features.feast.entity_frame import connect
for con in (lake.connect(), connect(Path("spill")).__enter__()):
    print(con.execute("SELECT current_setting('threads')").fetchone()[0])
"""


@pytest.mark.skipif(cores() == 1, reason="there is one core")
def test_a_process_of_one_core_has_one_thread() -> None:
    printed = subprocess.check_output([sys.executable, "-c", THREADS], text=True)
    assert printed.split() == ["1", "1"]
