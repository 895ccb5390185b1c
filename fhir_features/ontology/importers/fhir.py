"""FHIR R4 CodeSystem and ConceptMap as JSON, and what a ValueSet means as a concept set.

Formats: https://hl7.org/fhir/R4/codesystem.html, https://hl7.org/fhir/R4/conceptmap.html and
https://hl7.org/fhir/R4/valueset.html. A system must be known; a site's own are added in `systems.toml` in its folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fhir_features.errors import DefinitionError, OntologyError, UsageError
from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.concept_sets import ConceptSet, concept_set
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.systems import identify_system
from fhir_features.ontology.write import write_artifact

# Equivalences that say that there is no target: https://hl7.org/fhir/R4/valueset-concept-map-equivalence.html
_NO_TARGET = frozenset({"unmatched", "disjoint"})


def import_release(request: Import) -> list[Manifest]:
    """Import one CodeSystem or ConceptMap. Raises OntologyError for JSON that is no such resource."""
    resource = _read(request.path)
    kind = resource.get("resourceType")
    if kind == "CodeSystem":
        return [_import_code_system(request, resource)]
    if kind == "ConceptMap":
        return list(_import_concept_map(request, resource))
    raise OntologyError(f"{request.path} is a {kind}, not a CodeSystem or ConceptMap: import one of these")


def value_set(path: str | Path) -> ConceptSet:
    """What a FHIR ValueSet (JSON) means, as a concept set: its enumerated codes, `is-a` filters and excludes.

    Raises DefinitionError for a rule that a concept set cannot say, such as another filter or an imported ValueSet.
    """
    resource = _read(Path(path))
    compose = resource.get("compose", {})
    included = [_component(path, part) for part in compose.get("include", ())]
    if resource.get("resourceType") != "ValueSet" or not included:
        raise DefinitionError(f"{path} is not a ValueSet that includes something: its `compose.include` is what counts")
    excluded = [_component(path, part) for part in compose.get("exclude", ())]
    meant = included[0] if len(included) == 1 else ConceptSet(operation="union", parts=tuple(included))
    return ConceptSet(operation="difference", parts=(meant, *excluded)) if excluded else meant


def _component(path: str | Path, component: dict[str, Any]) -> ConceptSet:
    system = _known_system(path, component.get("system"), DefinitionError)
    parts = [concept_set(f"{system}:{concept['code']}") for concept in component.get("concept", ())]
    for rule in component.get("filter", ()):
        below = concept_set(f"{system}:{rule['value']}", descendants=rule["op"] in ("is-a", "descendent-of"))
        if rule["property"] != "concept" or rule["op"] not in ("is-a", "descendent-of", "="):
            raise DefinitionError(f"{path}: a filter '{rule['property']} {rule['op']}' cannot be taken: list the codes")
        parts.append(below - concept_set(f"{system}:{rule['value']}") if rule["op"] == "descendent-of" else below)
    if not parts or "valueSet" in component:
        raise DefinitionError(f"{path}: a whole system or another ValueSet cannot be taken: list codes or use is-a")
    if len(component.get("filter", ())) > 1:
        raise DefinitionError(f"{path}: several filters at once cannot be taken: list the codes")
    return parts[0] if len(parts) == 1 else ConceptSet(operation="union", parts=tuple(parts))


def _read(path: Path) -> dict[str, Any]:
    try:
        resource = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise OntologyError(f"{path}: line {error.lineno} is not JSON; get the file again") from None
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path} cannot be read: name one JSON file") from None
    if not isinstance(resource, dict):
        raise OntologyError(f"{path}: line 1 does not begin a FHIR resource")
    return resource


def _known_system(
    path: str | Path, uri: str | None, error: type[DefinitionError] | type[OntologyError] = OntologyError
) -> str:
    system = identify_system(uri)
    if system is None:
        raise error(f"{path}: the code system '{uri}' is not known: add it to systems.toml in your ontologies folder")
    return system.name


def _import_code_system(request: Import, resource: dict[str, Any]) -> Manifest:
    import duckdb
    import pyarrow as pa

    rows = list(_concepts(resource.get("concept", ()), None))
    stated = resource.get("count", len(rows))
    if not rows or (stated != len(rows) and resource.get("content") == "complete"):
        raise OntologyError(f"{request.path} has {len(rows)} concepts and says {stated}; get the file again")
    manifest = external_manifest(
        system=_known_system(request.path, resource.get("url")),
        version=_version(request, resource),
        title=str(resource.get("title") or resource.get("name") or resource["url"]),
        content="complete" if resource.get("content") == "complete" else "fragment",
        licence=str(resource.get("copyright") or "stated by its publisher"),
        sources=[request.path],
    )
    connection = duckdb.connect()
    columns = ("code", "display", "active", "selectable", "parent")
    text, flag = pa.string(), pa.bool_()
    types = pa.schema(list(zip(columns, (text, text, flag, flag, text), strict=True)))
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(columns)}, schema=types)
    connection.register("rows", table)
    tables: dict[TableName, str] = {"concept": "SELECT DISTINCT code, display, active, selectable\nFROM rows"}
    # Only is-a (the default) makes what is below a code a kind of it: https://hl7.org/fhir/R4/valueset-codesystem-hierarchy-meaning.html
    if resource.get("hierarchyMeaning", "is-a") == "is-a":
        tables["edge"] = "SELECT code AS child, parent, 'is_a' AS relation\nFROM rows\nWHERE parent IS NOT NULL"
    return write_artifact(connection, request.target, manifest, tables)


def _concepts(
    concepts: list[dict[str, Any]], parent: str | None
) -> Iterator[tuple[str, str | None, bool, bool, str | None]]:
    for concept in concepts:
        properties = {item["code"]: item for item in concept.get("property", ())}
        inactive = properties.get("inactive", {}).get("valueBoolean", False)
        retired = properties.get("status", {}).get("valueCode") in ("retired", "inactive")
        abstract = properties.get("notSelectable", {}).get("valueBoolean", False)
        yield concept["code"], concept.get("display"), not (inactive or retired), not abstract, parent
        yield from _concepts(concept.get("concept", []), concept["code"])


def _import_concept_map(request: Import, resource: dict[str, Any]) -> Iterator[Manifest]:
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect()
    for group in resource.get("group", ()):
        rows = list(_map_rows(group))
        names = ("source", "target", "equivalence", "rule", "advice")
        text = pa.schema([(name, pa.string()) for name in names])
        connection.register("rows", pa.table({n: [row[i] for row in rows] for i, n in enumerate(names)}, schema=text))
        manifest = external_manifest(
            kind="map",
            system=_known_system(request.path, group.get("source")),
            target_system=_known_system(request.path, group.get("target")),
            version=_version(request, resource),
            title=str(resource.get("title") or resource.get("name") or resource.get("url")),
            content="fragment",
            licence=str(resource.get("copyright") or "stated by its publisher"),
            sources=[request.path],
        )
        query = "SELECT *, 1 AS map_group, 1 AS map_priority\nFROM rows"
        yield write_artifact(connection, request.target, manifest, {"map": query})


def _map_rows(group: dict[str, Any]) -> Iterator[tuple[str, str | None, str, str | None, str | None]]:
    for element in group.get("element", ()):
        for target in element.get("target", [{"equivalence": "unmatched"}]):
            equivalence = target["equivalence"]
            depends = "; ".join(f"{item['property']} = {item['value']}" for item in target.get("dependsOn", ()))
            code = None if equivalence in _NO_TARGET else target.get("code")
            yield element["code"], code, equivalence, depends or None, target.get("comment")


def _version(request: Import, resource: dict[str, Any]) -> str:
    version = request.version or resource.get("version")
    if not version:
        raise UsageError(f"{request.path} does not say its version: give it with --version")
    return str(version)
