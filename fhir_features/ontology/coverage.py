"""Which codes of the data are not understood, and how much of it is that?

In: the dictionary of codings, its resolution, and how many rows of each site and resource type have each code_id. Out:
the share of rows that is resolved, by system, site and resource type, and the codes that are not, by frequency.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from fhir_features.ontology.systems import identify_system

if TYPE_CHECKING:
    import pyarrow as pa


# Of each resource type of a site, as many of the codes that are understood.
MOST_FREQUENT = 10


@dataclass(frozen=True, slots=True)
class Covered:
    """How many rows there are of a system, site and resource type, and how many of them are resolved.

    At least `patients` patients have one: as many as have the most common code. At least `patients_resolved` have one
    that is resolved, and `patients_unresolved` one that is not.
    """

    system: str
    site: str
    resource_type: str
    rows: int
    resolved: int
    percent: float
    patients: int
    patients_resolved: int
    patients_unresolved: int


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A code as a source wrote it that stands for no concept, why, and how many rows have it.

    At least `patients` patients have it.
    """

    rows: int
    system: str
    code: str
    display: str
    site: str
    resource_type: str
    why: str
    patients: int


@dataclass(frozen=True, slots=True)
class Frequent:
    """A code that stands for a concept, as a source names it, and how many rows have it.

    At least `patients` patients have it.
    """

    rows: int
    system: str
    code: str
    display: str
    site: str
    resource_type: str
    patients: int


@dataclass(frozen=True)
class Coverage:
    """The report: shares by system, site and resource type; the unmapped codes by number of rows; and of each resource
    type of a site the `MOST_FREQUENT` codes that are understood, by number of patients."""

    covered: tuple[Covered, ...]
    unmapped: tuple[Unmapped, ...]
    frequent: tuple[Frequent, ...]

    def json(self) -> str:
        """The tables as {covered: [...], unmapped: [...], frequent: [...]}."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def html(self) -> str:
        """Both tables as one HTML page that needs nothing else."""
        return _PAGE.format(covered=_html_table(self.covered), unmapped=_html_table(self.unmapped))


def code_coverage(codings: pa.Table, resolution: pa.Table, counts: pa.Table) -> Coverage:
    """The coverage of data by its resolution.

    `codings` and `resolution` are as `resolve_dictionary` takes and gives them; `counts` is as `lake.code_counts` gives
    it; its code_id is null where a source wrote only text. A concept with several codings counts under the first of
    them.
    """
    import duckdb

    connection = duckdb.connect()
    connection.register("codings", codings)
    connection.register("resolution", resolution)
    connection.register("counts", counts)
    connection.register("system_names", _system_names(codings))
    connection.execute(f"CREATE TABLE coded_rows AS\n{_CODED_ROWS}")
    covered = connection.execute(_COVERED).fetchall()
    unmapped = connection.execute(_UNMAPPED).fetchall()
    frequent = connection.execute(_FREQUENT, [MOST_FREQUENT]).fetchall()
    return Coverage(
        tuple(Covered(*row) for row in covered),
        tuple(Unmapped(*row) for row in unmapped),
        tuple(Frequent(*row) for row in frequent),
    )


def _system_names(codings: pa.Table) -> pa.Table:
    """The short name of each system in a dictionary; one that is not known keeps its own."""
    import pyarrow as pa

    written = [system for system in codings["system"].unique().to_pylist() if system]
    known = [identify_system(system) for system in written]
    names = [system.name if system else own for system, own in zip(known, written, strict=True)]
    return pa.table({"written": pa.array(written, pa.string()), "name": pa.array(names, pa.string())})


_CODED_ROWS = """
WITH first_codings AS (
  SELECT
    code_id,
    arg_min({'system': system, 'code': code, 'display': display}, ordinal) AS coding
  FROM codings
  GROUP BY code_id
), outcomes AS (
  SELECT
    code_id,
    bool_or(status IN ('unmapped', 'text_only')) AS is_unmapped,
    min(CASE WHEN len(flags) > 0 THEN array_to_string(flags, ', ') ELSE status END) AS why
  FROM resolution
  WHERE rank = 0
  GROUP BY code_id
)
SELECT
  coalesce(system_names.name, '(none)') AS system,
  coding.code AS code,
  coding.display AS display,
  counts.site,
  counts.resource_type,
  counts.rows,
  counts.patients,
  coalesce(outcomes.is_unmapped, true) AS is_unmapped,
  coalesce(outcomes.why, 'text_only') AS why
FROM counts
LEFT JOIN first_codings USING (code_id)
LEFT JOIN outcomes USING (code_id)
LEFT JOIN system_names ON system_names.written = coding.system
"""

_COVERED = """
SELECT
  system,
  site,
  resource_type,
  CAST(sum(rows) AS BIGINT),
  CAST(coalesce(sum(rows) FILTER (NOT is_unmapped), 0) AS BIGINT),
  round(100.0 * coalesce(sum(rows) FILTER (NOT is_unmapped), 0) / sum(rows), 2),
  CAST(max(patients) AS BIGINT),
  CAST(coalesce(max(patients) FILTER (NOT is_unmapped), 0) AS BIGINT),
  CAST(coalesce(max(patients) FILTER (is_unmapped), 0) AS BIGINT)
FROM coded_rows
GROUP BY
  system,
  site,
  resource_type
ORDER BY
  system,
  site,
  resource_type
"""

_UNMAPPED = """
SELECT
  CAST(sum(rows) AS BIGINT) AS rows,
  system,
  coalesce(code, ''),
  coalesce(display, ''),
  site,
  resource_type,
  why,
  CAST(max(patients) AS BIGINT)
FROM coded_rows
WHERE is_unmapped
GROUP BY ALL
ORDER BY
  1 DESC,
  2, 3, 4, 5, 6, 7
"""

# Rows of one code may differ in what their source calls it: told is what most patients have, and how many they are.
_FREQUENT = """
SELECT
  CAST(sum(rows) AS BIGINT),
  system,
  code,
  arg_max(coalesce(display, ''), patients),
  site,
  resource_type,
  CAST(max(patients) AS BIGINT)
FROM coded_rows
WHERE NOT is_unmapped
GROUP BY
  system,
  code,
  site,
  resource_type
QUALIFY row_number() OVER (
  PARTITION BY site, resource_type
  ORDER BY max(patients) DESC, sum(rows) DESC, system, code
) <= ?
ORDER BY
  resource_type,
  site,
  max(patients) DESC,
  sum(rows) DESC,
  system,
  code
"""


def _cells(records: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    names = [field.name for field in fields(records[0])] if records else []
    return names, [[f"{getattr(record, name)}" for name in names] for record in records]


def _html_table(records: Sequence[Any]) -> str:
    names, rows = _cells(records)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Codes that are not understood</title>
<style>table {{ border-collapse: collapse }} td, th {{ padding: 0.2em 0.8em; text-align: left }}</style>
<h1>Share of rows that is resolved</h1>
{covered}
<h1>Codes that stand for no concept</h1>
{unmapped}
</html>
"""
