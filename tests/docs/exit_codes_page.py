"""What a command's exit code means, from fhir_features/errors.py. Run this file to write docs/reference/exit-codes.md."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from fhir_features import errors

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md"
INTRODUCTION = """# Exit codes and errors

Generated from the code: do not edit. A command that fails says on stderr, in one line, what is wrong and what to do; in
Python the same is an exception of `fhir_features.errors`. No message carries data of patients. A code is never reused.
"""


def written() -> str:
    """The page as it is to be."""
    rows = [f"| {code} | {' '.join(names)} | {meaning} |" for code, names, meaning in _codes()]
    return "\n".join([INTRODUCTION, "| exit code | exception | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def _codes() -> Iterator[tuple[int, list[str], str]]:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]
    for code in sorted({*errors.COMMON_CODES, *(each.exit_code for each in found)}):
        classes = [each for each in found if each.exit_code == code and each is not errors.FhirFeaturesError]
        own = " ".join(" ".join(inspect.getdoc(each).split()) for each in classes)
        yield code, [f"`{each.__name__}`" for each in classes], errors.COMMON_CODES.get(code, own)


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
