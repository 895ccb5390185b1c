"""Which concept has a name like this? A search over all names in the lock, for people who write definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fhir_features.errors import UsageError
from fhir_features.ontology.catalog import WANTED, Catalog
from fhir_features.ontology.systems import Concept


@dataclass(frozen=True, slots=True)
class Found:
    """A concept, the name that was found, and the latest release in the lock that has it."""

    concept: Concept
    name: str
    artifact: str


def search(catalog: Catalog, term: str, system: str | None, limit: int) -> list[Found]:
    """The concepts with all words of the term in one name, short names first. Raises UsageError for an empty term."""
    words = term.casefold().split()
    if not words:
        raise UsageError("there is nothing to search for: give a word of the name, such as 'diabetes'")
    rows = catalog.query(_SEARCH, {"words": words, "system": system, "limit": limit})
    return [Found(Concept(system, code), name, artifact) for system, code, name, artifact in rows]


def titles(catalog: Catalog, concepts: Sequence[Concept]) -> dict[Concept, str]:
    """The names of concepts in the latest release that has them; those without one are left out."""
    rows = catalog.query_concepts(_TITLES, concepts)
    return {Concept(system, code): title for system, code, title in rows}


_TITLES = f"""
WITH {WANTED}
SELECT
  system,
  code,
  arg_max(display, artifact) AS title
FROM wanted
JOIN concept USING (system, code)
WHERE display IS NOT NULL
GROUP BY
  system,
  code
"""

_SEARCH = """
WITH names AS (
  SELECT system, code, display AS name, artifact
  FROM concept
  UNION ALL
  SELECT system, code, text, artifact
  FROM designation
), matching AS (
  SELECT *
  FROM names
  WHERE ($system IS NULL OR system = $system)
    AND list_bool_and(list_transform($words, word -> contains(lower(name), word)))
)
SELECT
  system,
  code,
  arg_max(name, artifact) AS latest_name,
  max(artifact) AS latest
FROM matching
GROUP BY
  system,
  code
ORDER BY
  length(latest_name),
  system,
  code
LIMIT $limit
"""
