"""Which codes does a concept set come to, under a lock? All of them, over all releases in it.

A code that was retired, or that comes later, is in the expansion as long as one release puts it there: whoever was
coded with it then is found.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.ontology.catalog import WANTED, Catalog
from fhir_features.ontology.concept_sets import ConceptSet, Reach
from fhir_features.ontology.resolve import Coding, resolve
from fhir_features.ontology.systems import Concept, systems


def expand(catalog: Catalog, concepts: ConceptSet) -> frozenset[Concept]:
    """The concepts of a set, over all releases in the lock."""
    if concepts.operation == "concept":
        ((concept, reach),) = concepts.selections()
        return frozenset(map(Concept._make, _reached(catalog, concept, reach)))
    first, *others = [expand(catalog, part) for part in concepts.parts]
    for other in others:
        first = first | other if concepts.operation == "union" else first - other
    return first


def check(catalog: Catalog, concepts: ConceptSet) -> None:
    """Refuse a set that names what cannot be. Raises DefinitionError with the nearest right code.

    A code is refused if its system is complete in the lock and no release has it. Descendants are refused where the
    lock holds no hierarchy: the set would silently be the one code.
    """
    for concept, reach in concepts.selections():
        system = systems()[concept.system]
        if reach == "class":
            _check_class(catalog, concept)
        elif catalog.is_complete(concept.system) and not _exists(catalog, concept):
            raise DefinitionError(
                f"'{concept}' is in no release of {system.title} in the lock{_nearest(catalog, concept)}"
            )
        if reach == "descendants" and not _has_hierarchy(catalog, concept.system):
            raise DefinitionError(
                f"'{concept}' with descendants: the lock holds no hierarchy of {system.title}; "
                "import a release with `fhir-features ontology import`, or list the codes"
            )


def reach(catalog: Catalog, expansion: frozenset[Concept]) -> frozenset[Concept]:
    """The expansion, and the codes that the resolver surely turns into one of it: by a map or by safe history."""
    sources = {Concept(*row) for row in catalog.query_concepts(_LEADS_HERE, expansion)}
    leads = dict(enumerate(sorted(sources)))
    codings = [Coding(number, 0, source.system, source.code, None, None, None) for number, source in leads.items()]
    return expansion | {
        leads[row.code_id]
        for row in resolve(catalog, codings)
        if row.status in ("mapped", "followed") and Concept(str(row.system), str(row.code)) in expansion
    }


def ingredients(catalog: Catalog, codes: Sequence[str]) -> dict[str, frozenset[str]]:
    """By RxNorm code its ingredients, the most general ones: of a salt its base. One without edges is its own."""
    parameters = {"codes": list(codes), "relations": _RELATIONS["ingredient"]}
    found: dict[str, set[str]] = {code: set() for code in codes}
    for code, ingredient in catalog.query(_ABOVE, parameters):
        found[code].add(ingredient)
    return {code: frozenset(above) for code, above in found.items()}


_ABOVE = """
WITH RECURSIVE reached AS (
  SELECT
    code AS drug,
    code
  FROM (SELECT unnest($codes) AS code)
  UNION
  SELECT
    reached.drug,
    edge.parent
  FROM reached
  JOIN edge ON edge.child = reached.code
  WHERE edge.system = 'rxnorm'
    AND list_contains($relations, edge.relation)
)
SELECT
  drug,
  code
FROM reached
WHERE code NOT IN (
  SELECT child
  FROM edge
  WHERE system = 'rxnorm'
    AND list_contains($relations, relation)
)
"""

_BELOW = """
WITH RECURSIVE hierarchy AS MATERIALIZED (
  SELECT
    child,
    parent
  FROM edge
  WHERE system = $system
    AND list_contains($relations, relation)
), reached AS (
  SELECT $code AS code
  UNION
  SELECT hierarchy.child
  FROM reached
  JOIN hierarchy ON hierarchy.parent = reached.code
)
SELECT
  $system,
  code
FROM reached
"""

_LEADS_HERE = f"""
WITH {WANTED}
SELECT DISTINCT
  map.system,
  map.source
FROM wanted
JOIN map ON map.target_system = wanted.system
  AND map.target = wanted.code
  AND map.artifact_kind = 'map'
UNION
SELECT
  history.system,
  history.code
FROM wanted
JOIN history ON history.system = wanted.system
  AND history.successor = wanted.code
  AND history.kind IN ('replaced_by', 'same_as', 'merged')
"""

_IN_CLASS = """
SELECT DISTINCT
  system,
  source
FROM map
WHERE artifact_kind = 'classification'
  AND target_system = $system
  AND target = $code
"""

# How a drug reaches its ingredient (RxNorm technical documentation, section 12): a branded drug through the clinical
# drug, a pack through its contents, a clinical drug through its components.
_RELATIONS: dict[Reach, list[str]] = {
    "descendants": ["is_a"],
    "ingredient": [
        "has_ingredient",
        "has_precise_ingredient",
        "consists_of",
        "contains",
        "tradename_of",
        "form_of",
        "has_part",
        "is_a",
    ],
}


def _reached(catalog: Catalog, concept: Concept, reach: Reach) -> list[tuple[str, str]]:
    if reach == "self":
        return [(concept.system, concept.code)]
    parameters = {"system": concept.system, "code": concept.code}
    if reach == "class":
        return catalog.query(_IN_CLASS, parameters)
    return catalog.query(_BELOW, {**parameters, "relations": _RELATIONS[reach]})


def _exists(catalog: Catalog, concept: Concept) -> bool:
    sql = "SELECT 1\nFROM concept\nWHERE system = $system\n  AND code = $code\nLIMIT 1"
    return bool(catalog.query(sql, {"system": concept.system, "code": concept.code}))


def _has_hierarchy(catalog: Catalog, system: str) -> bool:
    sql = "SELECT 1\nFROM edge\nWHERE system = $system\n  AND relation = 'is_a'\nLIMIT 1"
    return bool(catalog.query(sql, {"system": system}))


def _nearest(catalog: Catalog, concept: Concept) -> str:
    sql = "SELECT DISTINCT code\nFROM concept\nWHERE system = $system\n  AND starts_with(code, $stem)"
    for stem in (concept.code[:3], concept.code[:1]):
        codes = sorted(code for (code,) in catalog.query(sql, {"system": concept.system, "stem": stem}))
        near = difflib.get_close_matches(concept.code, codes, n=1, cutoff=0.5)
        if near:
            return f": did you mean '{concept.system}:{near[0]}'?"
    return ": look it up with `fhir-features ontology search`"


def _check_class(catalog: Catalog, concept: Concept) -> None:
    sql = (
        "SELECT DISTINCT target\nFROM map\nWHERE artifact_kind = 'classification'\n"
        "  AND target_system = $system\n  AND target IS NOT NULL"
    )
    classes = {target for (target,) in catalog.query(sql, {"system": concept.system})}
    if concept.code not in classes:
        title = systems()[concept.system].title
        raise DefinitionError(f"there is no class '{concept}' of {title}: {did_you_mean(concept.code, classes)}")
