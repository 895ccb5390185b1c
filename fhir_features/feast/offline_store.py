"""The offline store of a Feast repository: `offline_store.type: fhir_features.feast.FhirOfflineStore`.

It is Feast's DuckDB store with retrieval and the pulls of materialization done anew: exact in what docs/feast.md shows,
and bounded in time and memory by what is asked. Feature tables of this package are read as they are registered, views
that have none yet are answered by the engine, and any other source is read as before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import compute_non_entity_date_range
from pydantic import StrictStr

from fhir_features.errors import FeatureTableError
from fhir_features.feast.as_of import newest, within
from fhir_features.feast.built import loaded_to, ours
from fhir_features.feast.entity_frame import connect, read_entity_frame
from fhir_features.feast.historical import answered, asked_of, everyone, spill
from fhir_features.feast.logs import column_types, open_log, repository_of
from fhir_features.times import UTC

if TYPE_CHECKING:
    from feast.data_source import DataSource
    from feast.feature_view import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

_INTEGERS = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


class FhirOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """The `offline_store` section of `feature_store.yaml`; its other keys are those of Feast's DuckDB store."""

    type: StrictStr = "fhir_features.feast.FhirOfflineStore"


class FhirRetrievalJob(IbisRetrievalJob):
    """A retrieval that is carried out when it is asked for its rows, and each time anew.

    Integers stay integers: in Arrow as they are, in pandas as its nullable ones; the `given` columns come back as they
    were.
    """

    def __init__(
        self, config: RepoConfig, rows: Callable[[], pa.Table], *, given: Sequence[str], **fields: Any
    ) -> None:
        fields = {"on_demand_feature_views": [], "full_feature_names": False, "metadata": None, **fields}
        super().__init__(
            table=None,
            data_source_writer=_write_data_source,
            staging_location=config.offline_store.staging_location,
            staging_location_endpoint_override=config.offline_store.staging_location_endpoint_override,
            repo_path=str(config.repo_path),
            **fields,
        )
        self._rows = rows
        self._given = list(given)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._rows()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._frame(self._rows())

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """The rows as a pandas frame; see Feast's `RetrievalJob.to_df`."""
        return self._frame(self.to_arrow(validation_reference=validation_reference, timeout=timeout))

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the rows where a saved dataset is kept; see Feast's `RetrievalJob.persist`."""
        self.table = ibis.memtable(self._rows())
        super().persist(storage, allow_overwrite, timeout)

    def to_remote_storage(self) -> list[str]:
        """Write the rows to the staging location; see Feast's `RetrievalJob.to_remote_storage`."""
        self.table = ibis.memtable(self._rows())
        return list(super().to_remote_storage())

    def _frame(self, rows: pa.Table) -> pd.DataFrame:
        answers = rows.drop_columns(self._given).to_pandas(types_mapper=_INTEGERS.get)
        return pd.concat([rows.select(self._given).to_pandas(), answers], axis="columns")[rows.column_names]


class FhirOfflineStore(DuckDBOfflineStore):
    """Feast's offline store over feature tables, and over any source that its DuckDB store reads."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: dt.datetime | None = None,
        end_date: dt.datetime | None = None,
    ) -> FhirRetrievalJob:
        """The features of an entity frame's rows at their instants; the rows, their order and columns stay.

        `entity_df`: a pandas or polars frame, an Arrow table, a query for DuckDB, the path of Parquet files, or None:
        then whoever has a row between the two dates is asked about at the later one. Features come in the order in
        which they were asked for. Raises SpineError for the frame, FeatureTableError for a view that is not as it was
        registered.
        """
        asked = asked_of(feature_views, feature_refs, full_names=full_feature_names)
        asked.check()
        if entity_df is None:
            frame = everyone(config, asked, *compute_non_entity_date_range(feature_views, start_date, end_date))
        else:
            frame = read_entity_frame(entity_df, repository_of(config))
        asked.check_frame(frame)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)

        def rows() -> pa.Table:
            table = answered(config, frame, asked, by_created=filter_by_created_timestamp)
            for view in on_demand:
                if view.mode == "substrait":
                    table = view.transform_ibis(ibis.memtable(table), full_feature_names).to_pyarrow()
            return table

        times = pc.min_max(frame.table.column(frame.time)).as_py()
        return FhirRetrievalJob(
            config,
            rows,
            given=frame.table.column_names,
            on_demand_feature_views=[view for view in on_demand if view.mode != "substrait"],
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in frame.table.column_names if name != frame.time],
                min_event_timestamp=times["min"],
                max_event_timestamp=times["max"],
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: dt.datetime,
        end_date: dt.datetime,
    ) -> FhirRetrievalJob:
        """The newest row of each entity between two instants, both included.

        Of a feature table all that Feast has not loaded yet is between them, whatever the start; an end beyond its
        watermark is refused (FeatureTableError).
        """
        since, until = _interval(config, data_source, start_date, end_date)
        columns = _pulled(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)

        def rows() -> pa.Table:
            with connect(spill(config)) as con:
                log = open_log(con, config, data_source, join_key_columns, timestamp_field, created_timestamp_column)
                return newest(con, log, columns, since, until)

        return FhirRetrievalJob(config, rows, given=join_key_columns)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: dt.datetime | None = None,
        end_date: dt.datetime | None = None,
    ) -> FhirRetrievalJob:
        """All rows between two instants, both included; of a feature table as in `pull_latest_from_table_or_query`."""
        since, until = _interval(config, data_source, start_date, end_date)
        columns = _pulled(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)

        def rows() -> pa.Table:
            with connect(spill(config)) as con:
                log = open_log(con, config, data_source, join_key_columns, timestamp_field, created_timestamp_column)
                return within(con, log, columns, since, until)

        return FhirRetrievalJob(config, rows, given=join_key_columns)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Append rows to a view's source. Raises FeatureTableError for a feature table: only builds write there."""
        if mine := ours(feature_view.batch_source):
            raise FeatureTableError(
                f"feature view '{mine.view}' has a feature table, which nothing but `fhir-features build` writes: "
                "pull and normalize what is new, and build"
            )
        DuckDBOfflineStore.offline_write_batch(config, feature_view, table, progress)

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:
        """Whether `feast apply` may register a source. A feature table need not have been built yet."""
        if ours(data_source) is None:
            super().validate_data_source(config, data_source)

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> list[tuple[str, str]]:
        """The columns of a source, by which `feast apply` infers a schema: also those of folders and patterns."""
        return column_types(config, data_source)


def _interval(
    config: RepoConfig, source: DataSource, start: dt.datetime | None, end: dt.datetime | None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """From when to when rows are pulled (UTC). Feast takes an instant without a zone for the machine's local time."""
    since = start.astimezone(UTC) if start else None
    until = end.astimezone(UTC) if end else None
    mine = ours(source)
    if mine is None or until is None:
        return since, until
    mine.check()
    mine.check_end(until)
    unloaded = mine.since(loaded_to(config, source))
    return (min(since, unloaded) if since and unloaded else None), until


def _pulled(keys: Sequence[str], features: Sequence[str], at: str, created: str | None) -> list[str]:
    """The columns that are pulled, in the order in which Feast's own stores give them."""
    columns = dict.fromkeys([*keys, *features, at, *([created] if created else [])])
    # The partition of Feast's logs, which is no feature.
    return [column for column in columns if column != "__log_date"]
