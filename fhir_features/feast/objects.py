"""What does Feast have to know about our feature views? In goes a FeatureStore; out come the entities, file sources and
feature views that `feast apply` registers, one of each a view that can be built.

A feature table's row is the whole answer from `answered_at` on (DESIGN.md, "Feature tables"), so Feast's plain "latest
row at or before T" is right: `answered_at` is the timestamp, `published_at` the created timestamp, and a time to live
would only forget answers that still hold.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fhir_features.feast.built import source_tags
from fhir_features.features import FeatureView
from fhir_features.features.compile import compile_features
from fhir_features.features.tables import table_folder

if TYPE_CHECKING:
    import feast

    from fhir_features.store import FeatureStore


def feast_objects(store: FeatureStore) -> dict[str, Any]:
    """The Feast objects of a store's views by the names of Python variables, for a module that `feast apply` reads.

    A patient is two entities, (site, patient_id), as one patient_id means different people at different sites.
    Raises DefinitionError for a mistake in the definitions.
    """
    import feast

    keys = ("site", "patient_id")
    entities = {key: feast.Entity(name=key, join_keys=[key], value_type=feast.ValueType.STRING) for key in keys}
    views = {f"view_{view.name}": _feature_view(store, view, list(entities.values())) for view in store.views.values()}
    return {**entities, **views}


def _feature_view(store: FeatureStore, view: FeatureView, entities: list[feast.Entity]) -> feast.FeatureView:
    import feast
    from feast.types import String

    folder = table_folder(store.tables, view)
    source = feast.FileSource(
        name=f"{view.name}_table",
        # Absolute, as Feast's DuckDB store resolves a relative path against whatever folder it is called in.
        path=str(folder.absolute() / "*.parquet"),
        timestamp_field="answered_at",
        created_timestamp_column="published_at",
        tags=source_tags(store.config.file, view.name, folder),
    )
    # With the entities' types stated Feast does not look into the files, which need not be there yet.
    keys = [feast.Field(name=entity.join_key, dtype=String) for entity in entities]
    features = [
        feast.Field(name=field.name, dtype=_feast_type(field.type))
        for field in compile_features(view.features).schema
        if field.name != "question"
    ]
    return feast.FeatureView(
        name=view.name,
        entities=entities,
        ttl=dt.timedelta(0),
        schema=[*keys, *features],
        source=source,
        tags={"definition": folder.name},
    )


def _feast_type(arrow_type: pa.DataType) -> Any:
    from feast import types

    return {
        pa.float64(): types.Float64,
        pa.int64(): types.Int64,
        pa.bool_(): types.Bool,
        pa.string(): types.String,
    }[arrow_type]
