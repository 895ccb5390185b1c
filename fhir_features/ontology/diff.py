"""What changed between two releases of a code system, or two versions of a map?

In: the ids of two artifacts in the lock. Out: one row for each code and change. `added` and `retired` are codes that
one may use in one release alone (billable ones in ICD-10-CM); a code that is divided stays as a header. Of a map, the
pairs that one version has alone are `mapped` and `unmapped`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fhir_features.errors import UsageError
from fhir_features.ontology.catalog import Catalog

Kind = Literal[
    "added",
    "retired",
    "header_to_billable",
    "billable_to_header",
    "header_added",
    "header_removed",
    "retitled",
    "moved",
    "mapped",
    "unmapped",
]

# The kinds of change that make a code one that may be used, or no longer; and pairs of a map.
GAINED: frozenset[Kind] = frozenset({"added", "header_to_billable", "mapped"})
LOST: frozenset[Kind] = frozenset({"retired", "billable_to_header", "unmapped"})


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One change of one code: what it was (title, parent) and what it is, and what the history says became of it."""

    code: str
    kind: Kind
    before: str | None
    after: str | None
    successors: tuple[str, ...]


def release_changes(catalog: Catalog, old: str, new: str) -> list[Change]:
    """The changes from one release to another, by code. Raises UsageError for ids that are no two such releases."""
    before, after = (catalog.release(each, ("codesystem", "map", "classification")) for each in (old, new))
    if (before.system, before.target_system) != (after.system, after.target_system):
        raise UsageError(f"'{old}' and '{new}' are of different code systems: compare two releases of one")
    if after.kind != "codesystem":
        return _map_changes(catalog, old, new)
    successors = dict(catalog.query(_SUCCESSORS, {"new": new}))
    changes = []
    for code, old_title, new_title, old_usable, new_usable, old_parent, new_parent in catalog.query(
        _PAIRS, {"old": old, "new": new}
    ):
        kind = _usability_change(old_usable, new_usable)
        if kind:
            changes.append(Change(code, kind, old_title, new_title, tuple(successors.get(code, ()))))
        if old_usable is not None and new_usable is not None:
            if _words(old_title) != _words(new_title):
                changes.append(Change(code, "retitled", old_title, new_title, ()))
            if old_parent != new_parent:
                changes.append(Change(code, "moved", old_parent, new_parent, ()))
    return sorted(changes, key=lambda change: (change.code, change.kind))


def changes_text(changes: list[Change]) -> str:
    """Changes as a table of text with a header, one change a line."""
    lines = ["code\tchange\tbefore\tafter\tsuccessors"]
    for change in changes:
        cells = (change.code, change.kind, change.before or "", change.after or "", " ".join(change.successors))
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def write_changes(catalog: Catalog, home: Path, system: str) -> None:
    """Write the changes between all consecutive releases of a system beside them, for review."""
    releases = [manifest for manifest in catalog.code_systems(system) if manifest.predecessor]
    folder = home / "codesystem" / system / "changes"
    folder.mkdir(parents=True, exist_ok=True)
    for release in releases:
        assert release.predecessor is not None
        name = f"{release.predecessor.partition('@')[2]}__{release.version}.tsv"
        text = changes_text(release_changes(catalog, release.predecessor, release.id))
        (folder / name).write_text(text, encoding="utf-8")


def _map_changes(catalog: Catalog, old: str, new: str) -> list[Change]:
    pairs = [set(catalog.query(_MAP_PAIRS, {"artifact": artifact})) for artifact in (old, new)]
    changes = [Change(source, "unmapped", target, None, ()) for source, target in pairs[0] - pairs[1]]
    changes += [Change(source, "mapped", None, target, ()) for source, target in pairs[1] - pairs[0]]
    return sorted(changes, key=lambda change: (change.code, change.kind, change.before or "", change.after or ""))


def _usability_change(old: bool | None, new: bool | None) -> Kind | None:
    kinds: dict[tuple[bool | None, bool | None], Kind] = {
        (None, True): "added",
        (None, False): "header_added",
        (True, None): "retired",
        (False, None): "header_removed",
        (True, False): "billable_to_header",
        (False, True): "header_to_billable",
    }
    return kinds.get((old, new))


_NOT_A_WORD = re.compile(r"[^\w%]+")


def _words(title: str | None) -> str:
    # Sources punctuate the same title in two ways: "contusion, initial encounter" and "contusion initial encounter".
    return _NOT_A_WORD.sub(" ", (title or "").casefold()).strip()


_PAIRS = """
WITH old_codes AS (
  SELECT code, any_value(display) AS title, bool_or(active AND selectable) AS usable
  FROM concept
  WHERE artifact = $old
  GROUP BY code
), new_codes AS (
  SELECT code, any_value(display) AS title, bool_or(active AND selectable) AS usable
  FROM concept
  WHERE artifact = $new
  GROUP BY code
), old_parents AS (
  SELECT child AS code, string_agg(parent, ' ' ORDER BY parent) AS parents
  FROM edge
  WHERE artifact = $old
    AND relation = 'is_a'
  GROUP BY child
), new_parents AS (
  SELECT child AS code, string_agg(parent, ' ' ORDER BY parent) AS parents
  FROM edge
  WHERE artifact = $new
    AND relation = 'is_a'
  GROUP BY child
)
SELECT
  code,
  old_codes.title,
  new_codes.title,
  old_codes.usable,
  new_codes.usable,
  old_parents.parents,
  new_parents.parents
FROM old_codes
FULL JOIN new_codes USING (code)
LEFT JOIN old_parents USING (code)
LEFT JOIN new_parents USING (code)
WHERE old_codes.usable IS DISTINCT FROM new_codes.usable
  OR old_codes.title IS DISTINCT FROM new_codes.title
  OR old_parents.parents IS DISTINCT FROM new_parents.parents
"""

_MAP_PAIRS = """
SELECT DISTINCT
  source,
  target
FROM map
WHERE artifact = $artifact
  AND target IS NOT NULL
"""

_SUCCESSORS = """
SELECT
  code,
  list(successor ORDER BY successor)
FROM history
WHERE artifact = $new
GROUP BY code
"""
