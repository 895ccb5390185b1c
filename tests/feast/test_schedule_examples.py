"""The examples of how to schedule the job: what they run is there, and the programs that read them take them."""

from __future__ import annotations

import importlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from fhir_features.cli import cli

EXAMPLES = Path(__file__).parents[2] / "examples" / "schedule"


def commands(text: str) -> list[list[str]]:
    """The words after `fhir-features` of every call of it in a text."""
    return [found.split() for found in re.findall(r"/bin/fhir-features((?: +[\w./-]+)+)", text)]


@pytest.mark.parametrize("name", ["crontab", "fhir-features-materialize.service"])
def test_what_is_run_can_be_run(name: str):
    found = commands((EXAMPLES / name).read_text())
    assert found
    for command, *words in found:
        known = cli.get_command(click.Context(cli), command)
        assert known is not None
        known.make_context(command, words)


def test_each_line_of_the_crontab_is_a_setting_or_has_five_fields():
    lines = [line for line in (EXAMPLES / "crontab").read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Z_]+=\S+|(?:[\d*/,-]+ ){5}/\S+ .+", line)
    assert len(lines) == 4


def test_systemd_takes_the_units(tmp_path: Path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on the PATH")
    units = []
    for unit in sorted(EXAMPLES.glob("fhir-features-*")):
        text = re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text()).replace("User=", "#User=")
        units.append(tmp_path / unit.name)
        units[-1].write_text(text)
    verified = subprocess.run([program, "verify", *units], capture_output=True, text=True)
    own = [line for line in verified.stderr.splitlines() if "fhir-features" in line]
    assert (verified.returncode, own) == (0, []), verified.stderr


def test_airflow_has_the_job_and_then_the_parity(monkeypatch: pytest.MonkeyPatch):
    """With a stand-in for Airflow, which is not installed here: what the DAG asks of it."""
    tasks: list[Any] = []
    order: list[tuple[str, str]] = []

    class Operator:
        def __init__(self, *, task_id: str, bash_command: str, **more: Any) -> None:
            self.task_id, self.bash_command = task_id, bash_command
            tasks.append(self)

        def __rshift__(self, other: Operator) -> None:
            order.append((self.task_id, other.task_id))

    class Dag:
        def __init__(self, *, dag_id: str, schedule: str, catchup: bool, max_active_runs: int, **more: Any) -> None:
            assert (catchup, max_active_runs) == (False, 1)

        def __enter__(self) -> Dag:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    bash = "airflow.providers.standard.operators.bash"
    for name in ("airflow", *(bash.rsplit(".", depth)[0] for depth in (3, 2, 1)), bash):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["airflow"], "DAG", Dag, raising=False)
    monkeypatch.setattr(sys.modules[bash], "BashOperator", Operator, raising=False)
    runpy.run_path(str(EXAMPLES / "airflow_dag.py"))
    assert order == [("materialize", "parity")]
    for task in tasks:
        ((_, config, command, *words),) = commands(task.bash_command)
        assert config.endswith(".toml")
        importlib.import_module(f"fhir_features.cli.{command}").command.make_context(command, words)
