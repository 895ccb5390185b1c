"""Each direct dependency is named with its reason in docs/security.md, and nothing else is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_direct_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[\[=<>]", each)[0] for each in project["dependencies"]}
    rows = re.findall(
        r"^\| (\w[\w., -]+) \| .+ \|$", (ROOT / "docs" / "security.md").read_text().partition("| dependency |")[2], re.M
    )
    assert {name for row in rows for name in row.split(", ")} == direct
