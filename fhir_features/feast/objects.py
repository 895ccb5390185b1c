"""What does Feast have to know about our feature views? In goes a FeatureStore; out come the entities, file sources,
feature views and feature services that `feast apply` registers, with what their definitions say about themselves.

A feature table's row is the whole answer from `answered_at` on (DESIGN.md, "Feature tables"), so Feast's plain "latest
row at or before T" is right: `answered_at` is the timestamp, `published_at` the created timestamp, and a time to live
would only forget answers that still hold.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fhir_features.feast.built import source_tags
from fhir_features.feast.repository import DEFINITION, kept_tags
from fhir_features.features import FeatureService, FeatureView
from fhir_features.features.compile import compile_features
from fhir_features.features.nodes import Feature
from fhir_features.features.table_log import table_folder
from fhir_features.features.wording import concepts_of, in_words, unit_of
from fhir_features.files import parquet_in

if TYPE_CHECKING:
    import feast

    from fhir_features.store import FeatureStore

_KEYS = {"site": "The organisation that a patient's data comes from.", "patient_id": "The patient, within the site."}
MAX_AGE = "max_age"


def feast_objects(store: FeatureStore) -> dict[str, Any]:
    """The Feast objects of a store's views and services by the names of Python variables, for what `feast apply` reads.

    A patient is two entities, (site, patient_id), as one patient_id means different people at different sites.
    Raises DefinitionError for a mistake in the definitions.
    """
    import feast

    entities = [
        feast.Entity(name=key, join_keys=[key], value_type=feast.ValueType.STRING, description=description)
        for key, description in _KEYS.items()
    ]
    kept = kept_tags(store)
    views = {name: _feature_view(store, view, entities, kept.get(name, {})) for name, view in store.views.items()}
    services = {name: _feature_service(store, service, views) for name, service in store.services.items()}
    return {
        **{entity.name: entity for entity in entities},
        **{f"view_{name}": view for name, view in views.items()},
        **{f"service_{name}": service for name, service in services.items()},
    }


def _feature_view(
    store: FeatureStore, view: FeatureView, entities: list[feast.Entity], kept: Mapping[str, str]
) -> feast.FeatureView:
    import feast
    from feast.types import String

    folder = table_folder(store.tables, view)
    source = feast.FileSource(
        name=f"{view.name}_table",
        # Absolute, as Feast's DuckDB store resolves a relative path against whatever folder it is called in.
        path=parquet_in(folder.absolute()),
        timestamp_field="answered_at",
        created_timestamp_column="published_at",
        tags=source_tags(store.config.file, view.name, folder),
        description=f"The log of the answers of {view.name}, which `fhir-features build` writes.",
        owner=view.owner,
    )
    # With the entities' types stated Feast does not look into the files, which need not be there yet.
    keys = [feast.Field(name=entity.join_key, dtype=String, description=entity.description) for entity in entities]
    types = {field.name: field.type for field in compile_features(view.features).schema}
    return feast.FeatureView(
        name=view.name,
        entities=entities,
        ttl=dt.timedelta(0),
        schema=[*keys, *(_field(feature, types[feature.name]) for feature in view.features)],
        source=source,
        description=view.description,
        owner=view.owner,
        tags=_tags(store, view, folder.name, kept),
    )


def _tags(store: FeatureStore, view: FeatureView, definition: str, kept: Mapping[str, str]) -> dict[str, str]:
    """`definition` names the table, `version` is the hash of the definition, `lock` the digest of the ontologies."""
    locked = store.locked(view.name)
    tags = {
        DEFINITION: definition,
        "version": locked.version,
        "lock": locked.known.lock_id,
        "cadence": view.cadence,
        "units": ", ".join(sorted({unit for each in view.features if (unit := unit_of(each.value))})),
        "concept_sets": ", ".join(dict.fromkeys(each for one in view.features for each in concepts_of(one))),
    }
    if view.max_age is not None:
        tags[MAX_AGE] = view.max_age
    return {**tags, **(kept if kept.get(DEFINITION) == definition else {})}


def _field(feature: Feature, arrow_type: pa.DataType) -> feast.Field:
    import feast

    tags = {"unit": unit_of(feature.value), "concept_sets": ", ".join(concepts_of(feature))}
    return feast.Field(
        name=feature.name,
        dtype=_feast_type(arrow_type),
        description=feature.description or in_words(feature.value),
        tags={name: said for name, said in tags.items() if said},
    )


def _feature_service(
    store: FeatureStore, service: FeatureService, views: Mapping[str, feast.FeatureView]
) -> feast.FeatureService:
    import feast

    chosen = service.chosen(store.views)
    return feast.FeatureService(
        name=service.name,
        features=[views[name][list(names)] for name, names in chosen.items()],
        description=service.description,
        owner=service.owner,
    )


def _feast_type(arrow_type: pa.DataType) -> Any:
    from feast import types

    return {
        pa.float64(): types.Float64,
        pa.int64(): types.Int64,
        pa.bool_(): types.Bool,
        pa.string(): types.String,
    }[arrow_type]
