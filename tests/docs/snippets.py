"""What a reader of a page would do with its snippets: files are written, commands run, Python run, prints compared.

In goes a page; its fenced blocks are followed in order, in one folder and one Python. A first line `# name.toml` names
the file that a block is. A block of `text` right after commands or Python is what they print. On a page that says that
they are only parsed (`PARSED_ONLY`), commands are held to the command line's own words.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml
from click.testing import CliRunner

from fhir_features.cli import cli
from fhir_features.config import Config

ROOT = Path(__file__).parents[2]
PARSED_ONLY = re.compile(r"<!-- The commands( and the Python)? on this page are parsed by the tests, not run: ")
FENCED = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:toml|py|yaml))\n")
SERVER = {"kind": "search", "site": "north", "timezone": "UTC", "base_url": "https://fhir.example.org/r4"}
# Programs that a page names and that no test runs: they install, schedule or reach another machine.
NOT_OURS = {"pip", "python", "python3", "crontab", "systemctl", "git", "feast", "openssl", "mkdir", "source", ".", "ls"}


@dataclass
class Reader:
    """Somebody who follows a page in a folder."""

    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)
    compared: int = 0
    _runs_commands: bool = True
    _runs_python: bool = True

    def follow(self, page: str) -> None:
        """Do what each snippet says."""
        parsed = PARSED_ONLY.search(page)
        self._runs_commands, self._runs_python = parsed is None, parsed is None or parsed[1] is None
        printed, end = None, 0
        for block in FENCED.finditer(page):
            language, text = block[1], block[2]
            follows = not page[end : block.start()].strip()
            end = block.end()
            if language == "text":
                if printed is not None and follows:
                    assert printed == text
                    self.compared += 1
                printed = None
            else:
                printed = self._do(language, text)

    def _do(self, language: str, text: str) -> str | None:
        if named := FILE_NAME.match(text):
            file = self.folder / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if language == "python" and self._runs_python:
            return self._python(text)
        if language == "python":
            compile(text, "snippet", "exec")
        elif language == "sh":
            return "".join(self._command(line) for line in _lines(text))
        elif language == "toml":
            self._configuration(text)
        elif language == "yaml":
            assert list(yaml.safe_load_all(text))
        elif language not in {"sql", "ini", "json"}:
            raise AssertionError(f"no test knows what to do with a block of '{language}'")
        return None

    def _python(self, text: str) -> str:
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
            exec(text, self.variables)
        return out.getvalue()

    def _command(self, line: str) -> str:
        program, *words = shlex.split(line, comments=True)
        if program == "cd":
            self.folder /= words[0]
        elif program == "export":
            name, _, value = words[0].partition("=")
            os.environ[name] = str(Path(value).expanduser())
        elif program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif program == "fhir-features":
            return self._ours(words) if self._runs_commands else parsed(words)
        elif program == "feast" and self._runs_commands:
            self._feast(words)
        else:
            assert program in NOT_OURS, f"no test knows how to run '{line}'"
        return ""

    def _ours(self, words: list[str]) -> str:
        with contextlib.chdir(self.folder):
            done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.stdout

    def _feast(self, words: list[str]) -> None:
        from feast.repo_config import load_repo_config
        from feast.repo_operations import apply_total

        option, repository, command = words
        assert (option, command) == ("-c", "apply")
        repo = self.folder / repository
        # Other repositories, of other pages and tests in this process, have modules of the same names.
        for file in repo.glob("*.py"):
            sys.modules.pop(file.stem, None)
        sys.path.insert(0, str(repo))
        with contextlib.redirect_stdout(io.StringIO()):
            apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=False)
        sys.path.remove(str(repo))
        for file in repo.glob("*.py"):
            sys.modules.pop(file.stem, None)

    def _configuration(self, text: str) -> None:
        """Hold a configuration, or a part of one that goes to a server, to what is known of its keys."""
        raw = tomllib.loads(text)
        for source in raw.get("sources", {}).values():
            if "kind" not in source:
                source.update({**SERVER, **source})
        Config.model_validate({**raw, "file": self.folder / "fhir_features.toml"})


def _lines(text: str) -> Iterator[str]:
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


def parsed(words: list[str]) -> str:
    """Hold a command to the words that the command line knows, without running it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="fhir-features")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    command.make_context(name, words, parent=context)
    return ""
