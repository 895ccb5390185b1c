"""Is what an export gave all that was asked for? In: its plan, its files with what came of each, and the issues of its
error files. Out: for each resource type how much came, whether that is all, and what a user should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fhir_features.config import Source
from fhir_features.sources.bulk_export import Plan
from fhir_features.sources.bulk_files import Lines
from fhir_features.sources.bulk_manifest import ExportedFile, Remark
from fhir_features.sources.wanted import can_be_checked


class TypeResult(msgspec.Struct):
    """What an export gave of one resource type: `entries` lines in `files`, and whether that is all."""

    entries: int = 0
    files: int = 0
    is_whole: bool = True
    warnings: list[str] = []

    def lacks(self, why: str) -> None:
        """Note that something is missing."""
        self.is_whole = False
        self.warnings = list(dict.fromkeys([*self.warnings, why]))


@dataclass(frozen=True)
class Download:
    """A file of an export, and what came of it."""

    exported: ExportedFile
    lines: Lines


def type_results(plan: Plan, downloads: Sequence[Download], remarks: Sequence[Remark]) -> dict[str, TypeResult]:
    """What came of each type of a plan."""
    results = {resource_type: _result(resource_type, plan, downloads) for resource_type in plan.types}
    for each in remarks:
        # An error that does not say what it concerns may concern everything.
        for resource_type in (each.resource_types or plan.types) if each.is_fatal else ():
            results[resource_type].lacks(f"the server could not export everything: {each.text}")
    return results


def export_warnings(plan: Plan, source: Source, files: Sequence[ExportedFile], remarks: Sequence[Remark]) -> list[str]:
    """What a user should know of an export as a whole."""
    strange = {file.resource_type for file in files if file.what == "output" and not is_asked_for(file, plan)}
    unchecked = [each for each in plan.types if not can_be_checked(source.filters(each))]
    warnings = [f"the server remarked on the export: {each.text}" for each in remarks if not each.is_fatal]
    if strange:
        warnings.append(f"types were exported that were not asked for, and are left out: {_listed(strange)}")
    if unchecked:
        warnings.append(f"whether the server heeds type_filters cannot be seen here, of {_listed(set(unchecked))}")
    return list(dict.fromkeys(warnings))


def is_asked_for(file: ExportedFile, plan: Plan) -> bool:
    """Whether a file of output may hold what a plan asks for: one that says no type may."""
    return file.resource_type is None or file.resource_type in plan.types


def _result(resource_type: str, plan: Plan, downloads: Sequence[Download]) -> TypeResult:
    own = [each for each in downloads if each.exported.resource_type == resource_type]
    others = [each for each in downloads if each.exported.resource_type is None]
    mixed = [each for each in others if each.lines.resources.get(resource_type)]
    result = TypeResult(
        entries=sum(each.lines.received for each in own) + sum(each.lines.resources[resource_type] for each in mixed),
        files=len(own) + len(mixed),
    )
    for each in (*own, *others):
        if each.lines.trouble:
            result.lacks(f"a file of the export is not whole: {each.lines.trouble}")
    if wrong := sum(each.exported.count not in (None, each.lines.received) for each in own):
        result.warnings.append(f"{wrong} of {len(own)} files do not have as many lines as the server counts")
    if plan.patients is None and (left_out := sum(each.lines.received - each.lines.kept for each in own)):
        result.warnings.append(
            f"the server did not heed _typeFilter: {left_out} of {result.entries} resources were left out"
        )
    is_full = plan.since is None and plan.patients is None
    if is_full and not own and not any(each.exported.what == "output" for each in others):
        result.warnings.append(
            f"no file of {resource_type} in the export: if there are some, the scope system/{resource_type}.read may "
            "be missing; until some come, all of them are asked for each time"
        )
    return result


def _listed(names: set[str | None] | set[str]) -> str:
    return ", ".join(sorted(str(name) for name in names))
