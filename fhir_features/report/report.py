"""The report of a store: what it holds and answers, as one HTML page that says nothing of any one patient.

In goes a connection that reads the lake, the views and what they are answered under; out comes a `Report`, whose facts
can be read as plain data, and which writes itself as a file that needs nothing else.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from fhir_features.features.engine import stand_at
from fhir_features.features.table_log import newest_file, reached, table_folder
from fhir_features.features.view import LockedView
from fhir_features.lake import code_counts, create_received_versions, newest_store_seq
from fhir_features.ontology import Coverage, Ontologies, code_coverage
from fhir_features.report import lake_facts
from fhir_features.report.disclosure import Count, Disclosure, share, sum_told, total
from fhir_features.report.facts import Artifact, Facts, ViewFacts
from fhir_features.report.feature_facts import ask_all_patients, asked_at, feature_facts
from fhir_features.report.page import render, write_page
from fhir_features.sources.progress import Progress, silent


@dataclass(frozen=True)
class Report:
    """What a store holds and answers. Every count in `facts` is one that may be told."""

    facts: Facts

    def html(self) -> str:
        """The page: one document that loads nothing and runs nothing."""
        return render("report.html", facts=self.facts, glance=glance(self.facts), first_late=lake_facts.FIRST_LATE)

    def json(self) -> str:
        """The facts as JSON: null for a count that is not told."""
        return json.dumps(asdict(self.facts), indent=2, ensure_ascii=False, default=str)

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, replacing the one before. Raises UsageError when it cannot be written."""
        return write_page(Path(path), self.html())


@dataclass(frozen=True)
class Glance:
    """The few numbers at the head of the page, over all sites."""

    patients: int
    received: int
    set_aside: Count
    set_aside_share: float | None
    late_share: float | None
    resolved_share: float | None
    features: int
    newest_seen: dt.datetime | None


def glance(facts: Facts) -> Glance:
    """The head of the page: sums of what is told below it."""
    received = total(each.received for each in facts.balances)
    late = [
        (each.late * each.versions, each.versions) for each in facts.late if each.late is not None and each.versions
    ]
    mapped = [(each.resolved, each.rows) for each in facts.mapped if each.resolved is not None and each.rows]
    return Glance(
        patients=total(facts.patients.values()),
        received=received,
        set_aside=facts.set_aside,
        set_aside_share=share(facts.set_aside, received),
        late_share=sum(part for part, _ in late) / sum(whole for _, whole in late) if late else None,
        resolved_share=share(total(part for part, _ in mapped), total(whole for _, whole in mapped)),
        features=sum(len(view.features) for view in facts.views),
        newest_seen=max((feed.seen_up_to for feed in facts.feeds if feed.seen_up_to), default=None),
    )


def make_report(
    con: duckdb.DuckDBPyConnection,
    known: Ontologies,
    views: Sequence[LockedView],
    tables: Path,
    *,
    told: Disclosure,
    progress: Progress = silent,
) -> Report:
    """The report of the lake as it stands, of these views, and of their feature tables in the folder `tables`."""
    con.execute("BEGIN TRANSACTION")  # One commit is seen throughout, whatever comes meanwhile.
    store_seq = newest_store_seq(con)
    stand_at(con, known, store_seq)
    create_received_versions(con)
    coverage = _coverage(con, known)
    unmapped, unmapped_untold = lake_facts.unmapped(coverage, told)
    balances, quarantined = lake_facts.balances(con, told)
    instants = asked_at(con)
    ask_all_patients(con, instants)
    facts = Facts(
        store_seq=store_seq,
        as_of=lake_facts.as_of(con),
        suppress_below=told.suppress_below,
        lock_id=known.lock_id,
        patients=lake_facts.patients(con, told),
        feeds=lake_facts.feeds(con, told),
        balances=balances,
        set_aside=sum_told(each.quarantined for each in balances),
        quarantined=quarantined,
        findings=lake_facts.findings(con, told),
        volumes=lake_facts.volumes(con, told),
        late=lake_facts.late_knowledge(con, told),
        closed=lake_facts.closed(con, told),
        known_through=lake_facts.known_through(con, told),
        mapped=lake_facts.mapped(coverage, told),
        frequent=lake_facts.frequent(coverage, told),
        unmapped=unmapped,
        unmapped_untold=unmapped_untold,
        asked_at=instants,
        views=tuple(_views(con, views, tables, told, progress)),
        artifacts=tuple(Artifact(each.id, each.title, each.content, each.content_sha256) for each in known.manifests),
    )
    con.execute("COMMIT")
    return Report(facts)


def _coverage(con: duckdb.DuckDBPyConnection, known: Ontologies) -> Coverage:
    codings = con.execute("SELECT * EXCLUDE (store_seq) FROM codings ORDER BY code_id, ordinal").to_arrow_table()
    return code_coverage(codings, known.resolve_dictionary(codings), code_counts(con))


def _views(
    con: duckdb.DuckDBPyConnection, views: Sequence[LockedView], tables: Path, told: Disclosure, progress: Progress
) -> Iterator[ViewFacts]:
    for number, view in enumerate(views):
        progress("report", "views", number, len(views))
        yield _view(con, view, tables, told)


def _view(con: duckdb.DuckDBPyConnection, locked: LockedView, tables: Path, told: Disclosure) -> ViewFacts:
    view = locked.view
    newest = newest_file(table_folder(tables, view))
    return ViewFacts(
        view.name,
        locked.version,
        view.cadence,
        reached(newest).watermarks if newest else {},
        feature_facts(con, locked.known, view.features, told),
    )
