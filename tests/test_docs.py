"""The README and the page on sources name what is there. What their snippets do is held to it by tests/docs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text of a section of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_folder_of_the_house_is_in_the_layout():
    root = Path(__file__).parents[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True).stdout.splitlines()
    folders = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    if not folders:
        pytest.skip("not a git checkout")
    assert folders == set(re.findall(r"^    (\w+)/", section("How it is laid out"), re.MULTILINE))


def test_every_link_of_the_readme_leads_to_a_file():
    root = Path(__file__).parents[1]
    linked = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in link]
    assert "docs/reference/cli.md" in linked
    assert [link for link in linked if not (root / link).exists()] == []


def test_every_behaviour_of_servers_has_a_test_that_is_there_or_is_said_to_have_none():
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "sources.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", page.split("## What servers do")[1], re.MULTILINE)
    assert {int(number) for number, _ in rows} == set(range(1, 24))
    for number, covered_by in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", covered_by)
        assert named or covered_by.startswith(("not covered: ", "does not arise: ")), number
        for file, name in named:
            assert f"\ndef {name}(" in (tests / file).read_text(encoding="utf-8"), name
