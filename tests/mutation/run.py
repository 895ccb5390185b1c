"""Do the tests notice when the code is wrong? A sample of mutants of times, engine and resolver, each in a process of
its own under the tests that must notice it; prints those that none did, and the counts.

MUTANTS=200 SEED=0 .venv/bin/python tests/mutation/run.py [module ...]
"""

from __future__ import annotations

import collections
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType

from mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
OPERATORS = ["tests/spec/test_operators.py", "tests/generative/test_engine_equals_reference.py"]
TESTS = {
    "fhir_features.times": ["tests/test_times.py"],
    "fhir_features.features.arrays": ["tests/features/test_arrays.py", *OPERATORS],
    "fhir_features.features.kernel": OPERATORS,
    "fhir_features.features.seen": ["tests/features/test_seen.py", *OPERATORS],
    "fhir_features.features.operators": OPERATORS,
    "fhir_features.features.engine": OPERATORS,
    "fhir_features.ontology.resolve": ["tests/ontology/test_resolve.py"],
}
# A mutant that never ends is noticed.
SECONDS = 300


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives one module the source of a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(file_of(fullname)))

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutant.source, str(file_of(fullname)), "exec")

    def get_source(self, fullname: str) -> str:
        return self._mutant.source


def file_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def noticed(module: str, mutant: Mutant | None) -> bool:
    """Whether a test of the module fails; of no mutant, whether they fail as they are."""
    process = os.fork()
    if not process:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.setpgid(0, 0)
        signal.alarm(SECONDS)
        if mutant:
            sys.meta_path.insert(0, Mutated(mutant))
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *TESTS[module]])))
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 1, 2, 3) or code < 0, f"the tests of {module} cannot be run"
    return code != 0


def warm_up() -> None:
    """Import, before there are forks, what the tests of each would."""
    import pytest  # noqa: F401


def main() -> None:
    os.chdir(ROOT)
    modules = sys.argv[1:] or list(TESTS)
    each = -(-int(os.environ.get("MUTANTS", "200")) // len(modules))
    dice = random.Random(int(os.environ.get("SEED", "0")))
    warm_up()
    counts: collections.Counter[tuple[str, bool]] = collections.Counter()
    for module in modules:
        assert not noticed(module, None), f"the tests of {module} fail as they are"
        found = mutants(module, file_of(module).read_text(encoding="utf-8"))
        sample = sorted(dice.sample(found, min(each, len(found))), key=lambda mutant: mutant.line)
        for mutant in sample:
            is_noticed = noticed(module, mutant)
            counts[module, is_noticed] += 1
            if not is_noticed:
                print(f"{file_of(module).relative_to(ROOT)}:{mutant.line}: {mutant.change}", flush=True)
        print(f"{module}: {counts[module, True]} of {len(sample)} noticed ({len(found)} mutants)", flush=True)
    print(f"{sum(n for (_, is_noticed), n in counts.items() if is_noticed)} of {counts.total()} mutants noticed")


if __name__ == "__main__":
    main()
