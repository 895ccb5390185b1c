"""The lowest versions of the direct dependencies that `pyproject.toml` allows, as constraints for pip on stdout.

python tests/packaging/lowest.py > lowest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lowest() -> list[str]:
    """`name==version` of each dependency that has a lower bound, those of the extras that the tests need, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["redis"], *extras["postgres"], *extras["meds"]]
    bounds = (re.fullmatch(r"([\w.-]+)(?:\[.*\])?(?:>=|==)([\w.]+).*", each) for each in named)
    return sorted({f"{bound[1]}=={bound[2]}" for bound in bounds if bound})


if __name__ == "__main__":
    print("\n".join(lowest()))
