"""Does a receipt still give the same training set? Every input is looked for first, by its hash; then it is made again.

In go a connection that reads the lake, a receipt and its spine; out comes a `Reproduction`: the training set as it is
made now, and the columns that differ from what the receipt vouches for. What is gone is named (ReproductionError).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fhir_features.errors import DefinitionError, OntologyError, ReproductionError
from fhir_features.features.content_hash import TableHash, table_hash
from fhir_features.features.receipts import Receipt, commits_hash, engine, spine_file
from fhir_features.features.retrieval import Request, TrainingSet, retrieve
from fhir_features.features.view import FeatureView, LockedView
from fhir_features.lake import newest_store_seq
from fhir_features.ontology import Ontologies, ontologies_under
from fhir_features.sources.progress import Progress, silent


@dataclass(frozen=True)
class Reproduction:
    """A training set made again, the receipt that it was made from, and the columns that came out otherwise."""

    training: TrainingSet
    receipt: Receipt
    differing: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every value is what the receipt vouches for."""
        return self.training.receipt.output == self.receipt.output


def kept_spine(folder: Path, receipt: Receipt) -> pa.Table:
    """The spine of a receipt from the folder of the warehouse that keeps them. Raises ReproductionError."""
    file = spine_file(folder, receipt.spine.sha256)
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowInvalid):
        raise ReproductionError(
            f"the spine of the receipt ({receipt.spine.rows:,} rows, {receipt.spine.sha256}) is not at {file}: give "
            "the file that was asked with, with --spine"
        ) from None


def reproduce(
    con: duckdb.DuckDBPyConnection, receipt: Receipt, spine: pa.Table, *, spines: Path, progress: Progress = silent
) -> Reproduction:
    """Make a training set again: the lake as it stood, definitions and locks of the receipt, the spine given.

    Raises ReproductionError that names each input that is gone, OntologyError for an artifact that was tampered with.
    """
    gone = [*_engine_gone(receipt), *_lake_gone(con, receipt), *_spine_differs(receipt, table_hash(spine))]
    known: dict[str, Ontologies] = {}
    for lock in receipt.locks:
        try:
            known[lock.id] = ontologies_under(lock)
        except OntologyError as error:
            gone.append(str(error))
    requests = [] if gone else list(_requests(receipt, known, gone))
    if gone:
        raise ReproductionError(f"the training set cannot be made again: {'; '.join(gone)}")
    training = retrieve(
        con,
        spine,
        requests,
        store_seq=receipt.store_seq,
        known_as_of=receipt.known_as_of,
        serving=receipt.serving,
        spines=spines,
        progress=progress,
    )
    differing = _differing(receipt.output, training.receipt.output)
    if differing:
        _verify(known)
    return Reproduction(training, receipt, differing)


def _engine_gone(receipt: Receipt) -> Iterator[str]:
    made, here = receipt.engine, engine()
    if made.semantics != here.semantics:
        yield (
            f"it was answered with semantics {made.semantics} of the engine (fhir-features {made.package}), this is "
            f"{here.semantics} ({here.package}): use that version"
        )


def _lake_gone(con: duckdb.DuckDBPyConnection, receipt: Receipt) -> Iterator[str]:
    newest = newest_store_seq(con)
    if newest < receipt.store_seq:
        yield f"the lake has {newest} commits, the receipt rests on commit {receipt.store_seq}: use the lake it had"
    elif commits_hash(con, receipt.store_seq) != receipt.commits:
        yield (
            f"the lake was made anew: its commits up to {receipt.store_seq} are not those that the receipt rests on: "
            "use the lake that it had"
        )


def _spine_differs(receipt: Receipt, found: TableHash) -> Iterator[str]:
    if found != receipt.spine:
        where = f"column {differing[0]}" if (differing := _differing(receipt.spine, found)) else "the order of columns"
        yield (
            f"the spine is not the receipt's ({found.rows:,} rows, the receipt's has {receipt.spine.rows:,}; {where} "
            "differs): give the file that was asked with, with --spine"
        )


def _requests(receipt: Receipt, known: dict[str, Ontologies], gone: list[str]) -> Iterator[Request]:
    """What the receipt asks of each view. Adds to `gone` what cannot be asked."""
    for asked in receipt.views:
        try:
            locked = LockedView(FeatureView(**asked.definition), known[asked.lock])
        except DefinitionError as error:
            gone.append(f"the definition of view '{asked.name}' is not one of this version: {error}")
            continue
        if locked.version == asked.version:
            yield Request(locked, tuple(locked.view.feature(name) for name in asked.features))
        else:
            gone.append(f"the definition of view '{asked.name}' is not that of version {asked.version}")


def _differing(one: TableHash, other: TableHash) -> tuple[str, ...]:
    """The columns that only one has, or that are not the same in both."""
    columns, others = ({column.name: column for column in each.columns} for each in (one, other))
    names = dict.fromkeys([*columns, *others])
    return tuple(name for name in names if columns.get(name) != others.get(name))


def _verify(known: dict[str, Ontologies]) -> None:
    """Recompute every hash of the locks, as a table may be other than its manifest says. Raises OntologyError."""
    for ontologies in known.values():
        for _ in ontologies.verify():
            pass
