"""The demo goes all the way through a real FHIR server, tells one clock from two, and always stops its server."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / ".venv-fhir" / "bin" / "sekmet"

# In the first three, what was known is not what the newest records say.
CASES = [
    *("drawn 2 h before", "before it was corrected", "before it was withdrawn"),
    *("after it was corrected", "after it was withdrawn"),
]

pytestmark = pytest.mark.skipif(
    not SERVER.exists(), reason="no FHIR server here: 'make test' and 'make demo' install it"
)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The demo in a folder of its own."""
    for name in ("examples", "feature_repo"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return [sys.executable, str(tmp_path / "examples" / "demo.py"), str(SERVER)]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def server_port(folder: Path) -> int:
    found = re.search(r"^port: (\d+)$", (folder / "demo" / "server" / "settings.yaml").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_it_shows_a_late_a_corrected_and_a_withdrawn_value(command: list[str], tmp_path: Path):
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    steps = [line.split("  ")[0] for line in shown.splitlines() if re.search(r" \d+\.\d s  ", line)]
    assert steps == [
        *("server", "pull", "normalize", "server", "pull", "normalize"),
        *("training set", "build", "feast apply", "materialize", "online"),
    ]
    assert "the same offline" in shown
    wrong = [line for line in shown.splitlines() if "wrong with one clock" in line]
    assert [when for when in CASES if any(when in line for line in wrong)] == CASES[:3]
    assert all(when in shown for when in CASES)
    assert not is_open(server_port(tmp_path))


def test_its_server_is_stopped_when_it_is_stopped(command: list[str], tmp_path: Path):
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = tmp_path / "demo" / "server" / "settings.yaml"
    while not (settings.exists() and settings.stat().st_size and is_open(server_port(tmp_path))):
        assert demo.poll() is None
        time.sleep(0.1)
    demo.send_signal(signal.SIGTERM)
    demo.wait()
    assert not is_open(server_port(tmp_path))
