"""What does an OperationOutcome say (https://hl7.org/fhir/R4/operationoutcome.html)? In: a body. Out: its issues by
severity and code only: their texts may quote what was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from fhir_features.sources.reading import NOT_JSON

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")


class _Issue(msgspec.Struct):
    severity: Any = None
    code: Any = None


class _Outcome(msgspec.Struct):
    resourceType: Any = None
    issue: list[_Issue] = []


def issues_in(body: bytes) -> list[tuple[str, str]]:
    """Severity and code of each issue of an OperationOutcome; of anything else, none."""
    try:
        outcome = msgspec.json.decode(body, type=_Outcome)
    except NOT_JSON:
        return []
    if outcome.resourceType != "OperationOutcome":
        return []
    return [(clean_code(issue.severity), clean_code(issue.code)) for issue in outcome.issue]


def clean_code(code: Any) -> str:
    """A code that can stand in a message; `?` for what is none."""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "?"


def in_brackets(issues: Sequence[tuple[str, str]]) -> str:
    """Issues as they stand in a message, with a space before them; nothing if there are none."""
    return f" ({', '.join(dict.fromkeys(f'{severity} {code}' for severity, code in issues))})" if issues else ""
