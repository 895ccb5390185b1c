"""FHIR R4 CodeSystem, ValueSet and ConceptMap as JSON.

Formats: https://hl7.org/fhir/R4/codesystem.html, https://hl7.org/fhir/R4/valueset.html and
https://hl7.org/fhir/R4/conceptmap.html. A system must be known; a site's own are added in `systems.toml` in its folder.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

from fhir_features.errors import OntologyError, UsageError
from fhir_features.ontology.artifacts import Manifest, TableName
from fhir_features.ontology.importers import Import, external_manifest
from fhir_features.ontology.systems import System, code_forms, identify_system
from fhir_features.ontology.value_sets import members, read_resource
from fhir_features.ontology.write import write_artifact

# Equivalences that say that there is no target: https://hl7.org/fhir/R4/valueset-concept-map-equivalence.html
_NO_TARGET = frozenset({"unmatched", "disjoint"})
_EQUIVALENCES = _NO_TARGET | frozenset("relatedto equivalent equal wider subsumes narrower specializes inexact".split())

_CODES = ("code", "display", "active", "selectable")
_EDGES = ("child", "parent")
_NAMES = ("code", "language", "text")
_MAPS = ("source", "target", "equivalence", "rule", "advice")
_MEMBERS = ("member_system", "code", "display", "reach", "excluded")


def import_release(request: Import) -> list[Manifest]:
    """Import one CodeSystem, ValueSet or ConceptMap. Raises OntologyError for JSON that is no such resource."""
    resource = read_resource(request.path)
    kind = resource.get("resourceType")
    if kind == "CodeSystem":
        return [_import_code_system(request, resource)]
    if kind == "ValueSet":
        return [_import_value_set(request, resource)]
    if kind == "ConceptMap":
        return list(_import_concept_map(request, resource))
    raise OntologyError(f"{request.path} is a {kind}, not a CodeSystem, ValueSet or ConceptMap: import one of these")


def _import_code_system(request: Import, resource: dict[str, Any]) -> Manifest:
    system = _known_system(request, resource.get("url"))
    found = _Codes(request, system)
    found.read(resource.get("concept", ()), None, "concept")
    stated = resource.get("count", len(found.codes))
    if not found.codes or (stated != len(found.codes) and resource.get("content") == "complete"):
        raise OntologyError(f"{request.path} has {len(found.codes)} concepts and says {stated}; get the file again")
    manifest = _manifest(
        request,
        resource,
        system=system.name,
        content="complete" if resource.get("content") == "complete" else "fragment",
    )
    rows: dict[TableName, tuple[tuple[str, ...], list[tuple[Any, ...]]]] = {
        "concept": (_CODES, list(found.codes.values())),
        "designation": (_NAMES, found.names),
    }
    # Only is-a (the default) makes what is below a code a kind of it: https://hl7.org/fhir/R4/valueset-codesystem-hierarchy-meaning.html
    if resource.get("hierarchyMeaning", "is-a") == "is-a":
        rows["edge"] = (_EDGES, sorted(found.edges))
    return _write(request, manifest, rows, {"edge": "SELECT *, 'is_a' AS relation\nFROM edge_rows"})


class _Codes:
    """What the concepts of a CodeSystem say: codes, edges (nested, or by the property `parent`) and other names."""

    def __init__(self, request: Import, system: System) -> None:
        self._request, self._system = request, system
        self.codes: dict[str, tuple[str, str | None, bool, bool]] = {}
        self.edges: set[tuple[str, str]] = set()
        self.names: list[tuple[str, str | None, str]] = []

    def read(self, concepts: list[dict[str, Any]], parent: str | None, place: str) -> None:
        for number, concept in enumerate(concepts):
            here = f"{place}[{number}]"
            code = _code(self._request, self._system, concept.get("code"), here)
            properties = {item.get("code"): item for item in concept.get("property", ())}
            inactive = properties.get("inactive", {}).get("valueBoolean", False)
            retired = properties.get("status", {}).get("valueCode") in ("retired", "inactive")
            abstract = properties.get("notSelectable", {}).get("valueBoolean", False)
            self.codes[code] = (code, concept.get("display"), not (inactive or retired), not abstract)
            # https://hl7.org/fhir/R4/codesystem-concept-properties.html
            stated = {item.get("valueCode") for item in concept.get("property", ()) if item.get("code") == "parent"}
            parents = {_code(self._request, self._system, each, here) for each in stated}
            self.edges |= {(code, each) for each in parents | ({parent} if parent else set())}
            others = (item for item in concept.get("designation", ()) if item.get("value"))
            self.names += [(code, item.get("language"), item["value"]) for item in others]
            self.read(concept.get("concept", []), code, f"{here}.concept")


def _import_value_set(request: Import, resource: dict[str, Any]) -> Manifest:
    name = str(resource.get("name") or resource.get("id") or "")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise OntologyError(f"{request.path} has no name of letters, digits and '.-_': give it one")
    manifest = _manifest(request, resource, system=name, kind="valueset")
    rows = [
        (each.system, each.code, each.display, each.reach, each.excluded) for each in members(resource, request.path)
    ]
    return _write(request, manifest, {"member": (_MEMBERS, rows)}, {})


def _import_concept_map(request: Import, resource: dict[str, Any]) -> Iterator[Manifest]:
    by_systems: dict[tuple[System, System], list[tuple[Any, ...]]] = defaultdict(list)
    for number, group in enumerate(resource.get("group", ())):
        source, target = (_known_system(request, group.get(end)) for end in ("source", "target"))
        place = f"group[{number}]"
        if group.get("unmapped", {}).get("mode", "provided") != "provided":
            raise OntologyError(f"{request.path}: {place}.unmapped cannot be taken: list the codes instead")
        by_systems[source, target] += _map_rows(request, group, source, target, place)
    if not any(by_systems.values()):
        raise OntologyError(f"{request.path} maps nothing: it has no group with elements; get the file again")
    for (source, target), rows in by_systems.items():
        manifest = _manifest(request, resource, system=source.name, target_system=target.name, kind="map")
        query = "SELECT *, 1 AS map_group, 1 AS map_priority\nFROM map_rows"
        yield _write(request, manifest, {"map": (_MAPS, rows)}, {"map": query})


def _map_rows(
    request: Import, group: dict[str, Any], source: System, target: System, place: str
) -> Iterator[tuple[Any, ...]]:
    for number, element in enumerate(group.get("element", ())):
        here = f"{place}.element[{number}]"
        code = _code(request, source, element.get("code"), here)
        for aim in element.get("target", [{"equivalence": "unmatched"}]):
            equivalence = aim.get("equivalence")
            if equivalence not in _EQUIVALENCES:
                raise OntologyError(f"{request.path}: {here} has the equivalence '{equivalence}', none of FHIR R4")
            depends = "; ".join(f"{item.get('property')} = {item.get('value')}" for item in aim.get("dependsOn", ()))
            aimed = None if equivalence in _NO_TARGET else _code(request, target, aim.get("code"), here)
            yield code, aimed, equivalence, depends or None, aim.get("comment")


def _known_system(request: Import, uri: str | None) -> System:
    system = identify_system(uri)
    if system is None:
        raise OntologyError(
            f"{request.path}: the code system '{uri}' is not known: add it to systems.toml in your ontologies folder"
        )
    return system


def _code(request: Import, system: System, written: str | None, place: str) -> str:
    forms = code_forms(system, written or "")
    if len(forms) != 1:
        raise OntologyError(f"{request.path}: {place} has '{written}', which is no code of {system.title}")
    return forms[0]


def _manifest(
    request: Import,
    resource: dict[str, Any],
    *,
    system: str,
    kind: Literal["codesystem", "map", "valueset"] = "codesystem",
    target_system: str | None = None,
    content: Literal["complete", "fragment"] = "fragment",
) -> Manifest:
    version = request.version or resource.get("version")
    if not version:
        raise UsageError(f"{request.path} does not say its version: give it with --version")
    return external_manifest(
        kind=kind,
        system=system,
        target_system=target_system,
        version=str(version),
        title=str(resource.get("title") or resource.get("name") or resource.get("url")),
        content=content,
        licence=str(resource.get("copyright") or "stated by its publisher"),
        sources=[request.path],
    )


def _write(
    request: Import,
    manifest: Manifest,
    rows: dict[TableName, tuple[tuple[str, ...], list[tuple[Any, ...]]]],
    queries: dict[TableName, str],
) -> Manifest:
    import duckdb
    import pyarrow as pa

    connection, flags = duckdb.connect(), ("active", "selectable", "excluded")
    tables: dict[TableName, str] = {}
    for name, (columns, values) in rows.items():
        arrays = {column: [row[place] for row in values] for place, column in enumerate(columns)}
        schema = pa.schema([(column, pa.bool_() if column in flags else pa.string()) for column in columns])
        connection.register(f"{name}_rows", pa.table(arrays, schema=schema))
        tables[name] = queries.get(name, f"FROM {name}_rows")
    return write_artifact(connection, request.target, manifest, tables)
