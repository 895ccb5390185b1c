"""What does a FHIR ValueSet mean, as a concept set? From its JSON, or as it was imported into the lock.

In: a resource (https://hl7.org/fhir/R4/valueset.html). Out: its members, one row a code with what it reaches, and the
concept set that they make. `compose` is what counts; an expansion only where there is no compose that can be taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fhir_features.errors import DefinitionError, OntologyError, UsageError, did_you_mean
from fhir_features.ontology.concept_sets import ConceptSet, concept_set
from fhir_features.ontology.systems import code_forms, identify_system

if TYPE_CHECKING:
    from fhir_features.ontology.catalog import Catalog

# What a filter on the hierarchy reaches: https://hl7.org/fhir/R4/valueset-filter-operator.html
_REACHES: dict[str, MemberReach] = {"=": "self", "is-a": "descendants", "descendent-of": "below"}

# The id of a value set in the lock: its name and version.
LOCKED = re.compile(r"valueset\.[^@/]+@[^@/]+")

MemberReach = Literal["self", "descendants", "below"]


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A code that a value set names, with what is below it or only that (`below`), included or excluded."""

    system: str
    code: str
    display: str | None
    reach: MemberReach
    excluded: bool


def value_set(source: str | Path) -> ConceptSet:
    """What a FHIR ValueSet means, as a concept set: a file of its JSON, or an id in the lock (`valueset.NAME@VERSION`).

    Raises DefinitionError for a rule that a concept set cannot say, UsageError for an id that is not in the lock.
    """
    if LOCKED.fullmatch(str(source)):
        from fhir_features.ontology.ontologies import load_ontologies

        return load_ontologies().value_set(str(source))
    return as_concept_set(members(read_resource(Path(source)), source))


def locked_value_set(catalog: Catalog, name: str) -> ConceptSet:
    """The concept set of a value set in the lock. Raises UsageError if there is none of that id."""
    names = [manifest.id for manifest in catalog.manifests if manifest.kind == "valueset"]
    if name not in names:
        raise UsageError(f"there is no value set '{name}' in the lock: {did_you_mean(name, names)}")
    sql = "SELECT member_system, code, display, reach, excluded\nFROM member\nWHERE artifact = $artifact\nORDER BY ALL"
    return as_concept_set([Member(*row) for row in catalog.query(sql, {"artifact": name})])


def as_concept_set(found: list[Member]) -> ConceptSet:
    """The set of the included members without the excluded ones."""
    included, excluded = ([_one(each) for each in found if each.excluded == out] for out in (False, True))
    meant = included[0] if len(included) == 1 else ConceptSet(operation="union", parts=tuple(included))
    return ConceptSet(operation="difference", parts=(meant, *excluded)) if excluded else meant


def members(resource: dict[str, Any], source: str | Path) -> list[Member]:
    """The members of a ValueSet, sorted. Raises DefinitionError for one that includes nothing or cannot be said."""
    compose, expansion = resource.get("compose", {}), resource.get("expansion", {})
    if resource.get("resourceType") != "ValueSet" or not (compose.get("include") or expansion.get("contains")):
        raise DefinitionError(f"{source} is not a ValueSet that includes something: look for its `compose.include`")
    try:
        found = [
            member
            for part, excluded in (("include", False), ("exclude", True))
            for component in compose.get(part, ())
            for member in _component(component, source, excluded)
        ]
    except DefinitionError:
        if not expansion:
            raise
        found = []
    return sorted(set(found or _expansion(expansion, source)), key=lambda member: (member.system, member.code))


def read_resource(path: Path) -> dict[str, Any]:
    """One FHIR resource from a file. Raises OntologyError for what is no JSON object, UsageError for no file."""
    try:
        resource = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise OntologyError(f"{path}: line {error.lineno} is not JSON; get the file again") from None
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path} cannot be read: name one JSON file") from None
    if not isinstance(resource, dict):
        raise OntologyError(f"{path}: line 1 does not begin a FHIR resource")
    return resource


def _one(member: Member) -> ConceptSet:
    concept = f"{member.system}:{member.code}"
    if member.reach == "self":
        return concept_set(concept)
    below = concept_set(concept, descendants=True)
    return below if member.reach == "descendants" else below - concept_set(concept)


def _component(component: dict[str, Any], source: str | Path, excluded: bool) -> Iterator[Member]:
    filters = component.get("filter", ())
    if "valueSet" in component or not (filters or component.get("concept")):
        raise DefinitionError(f"{source}: a whole system or another ValueSet cannot be taken: list codes or use is-a")
    if len(filters) > 1:
        raise DefinitionError(f"{source}: several filters at once cannot be taken: list the codes")
    for rule in filters:
        if rule.get("property") != "concept" or rule.get("op") not in _REACHES:
            said = f"{rule.get('property')} {rule.get('op')}"
            raise DefinitionError(f"{source}: a filter '{said}' cannot be taken: list the codes")
        yield _member(component, rule.get("value"), None, source, _REACHES[rule["op"]], excluded)
    for concept in component.get("concept", ()):
        yield _member(component, concept.get("code"), concept.get("display"), source, "self", excluded)


def _expansion(expansion: dict[str, Any], source: str | Path) -> list[Member]:
    found = list(_contained(expansion.get("contains", ()), source))
    if expansion.get("total", 0) > len(found):
        raise DefinitionError(
            f"{source}: its expansion has {len(found)} of {expansion['total']} codes: get it whole, not a page of it"
        )
    return found


def _contained(contains: list[dict[str, Any]], source: str | Path) -> Iterator[Member]:
    for item in contains:
        if not item.get("abstract") and item.get("code"):
            yield _member(item, item["code"], item.get("display"), source, "self", False)
        yield from _contained(item.get("contains", []), source)


def _member(
    holder: dict[str, Any],
    code: str | None,
    display: str | None,
    source: str | Path,
    reach: MemberReach,
    excluded: bool,
) -> Member:
    system = identify_system(holder.get("system"))
    if system is None:
        said = holder.get("system")
        raise DefinitionError(f"{source}: the code system '{said}' is not known: add it to your own systems.toml")
    forms = code_forms(system, code or "")
    if len(forms) != 1:
        raise DefinitionError(f"{source}: '{code}' is no code of {system.title}: write it like '{system.example}'")
    return Member(system.name, forms[0], display, reach, excluded)
