"""Nothing that is tracked by git depends on the machine it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Written in pieces, so that this file does not find itself.
PATHS = re.compile(
    rb"(?<![\w./-])/(" + rb"|".join([rb"ro" + rb"ot", rb"wo" + rb"rk", rb"ho" + rb"me", rb"op" + rb"t"]) + rb")/"
)
REGISTRIES = re.compile(rb"pypi" + rb"\.org|python" + rb"hosted\.org|--(extra-)?index" + rb"-url|--find" + rb"-links")


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [PATHS, REGISTRIES], ids=["a path of the machine", "a package registry"])
def test_no_tracked_file_names(pattern: re.Pattern[bytes]):
    files = tracked()
    assert ROOT / "pyproject.toml" in files
    assert [str(file.relative_to(ROOT)) for file in files if pattern.search(file.read_bytes())] == []


def test_every_constraint_is_an_exact_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
