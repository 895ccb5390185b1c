"""How do definitions, training sets and explanations look in a notebook? In goes one of them, out comes HTML.

It has no colours, so that it is light or dark as the notebook is, no script, and escapes every text that it is given.
The version of a view and the codes of a set are looked up when they are first shown, and kept; the hash of a training
set, which reads all of it, is shown where its receipt has been made already.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fhir_features.errors import FhirFeaturesError
from fhir_features.features.compile import kind_of, leaves
from fhir_features.features.nodes import Aggregate, Expression, Feature, PatientFact
from fhir_features.features.operators import EXPRESSIONS, OPERATORS, PATIENT_OPERATORS
from fhir_features.features.terms import ontologies
from fhir_features.features.wording import in_words, rows_in_words, unit_in_words, unit_of, window_in_words

if TYPE_CHECKING:
    from fhir_features.features.explain import Explanation
    from fhir_features.features.receipts import Receipt
    from fhir_features.features.retrieval import TrainingSet
    from fhir_features.features.view import FeatureView
    from fhir_features.ontology import ConceptSet

# As many rows and columns of a training set, and codes of a concept set, are shown.
_ROWS, _COLUMNS, _CODES = 5, 20, 10


def view_html(view: FeatureView) -> str:
    """A feature view: its name, cadence and version under the lock in use, and a line for each feature."""
    try:
        version = view.version[:12]
    except FhirFeaturesError as error:
        version = str(error)
    return _card(f"FeatureView {view.name}", f"{view.cadence}, version {version}", _table(*feature_table(view)))


def training_set_html(training: TrainingSet) -> str:
    """A training set: its size, its first rows, what to know before trusting it, and what it was made from."""
    table, summary, provenance = training.table, training.summary, training.provenance
    shown = table.slice(0, _ROWS).select(list(range(min(_COLUMNS, table.num_columns))))
    more = table.num_columns - shown.num_columns
    size = f"{table.num_rows:,} rows, {table.num_columns} columns" + (f", {more} not shown" if more else "")
    rows = zip(*(map(_cell, column.to_pylist()) for column in shown.columns), strict=True)
    shares = [f"{source} {share:.1%}" for source, share in summary.shares.items()]
    receipt = [f"{locked.view.name}@{locked.version[:12]}" for locked, _ in provenance.views]
    receipt.append(f"store_seq {provenance.store_seq}")
    if made := vars(training).get("receipt"):
        receipt.append(f"output {made.output.sha256[:12]}")
    facts = [
        f"{summary.unknown_patients:,} rows of patients who were not known",
        f"known_at from: {', '.join(shares) or 'no event rows'}",
        *(f"Warning: {warning}" for warning in summary.warnings),
        f"Receipt: {', '.join(receipt)}",
    ]
    return _card("TrainingSet", size, _table(shown.column_names, rows), *facts)


def concept_set_html(concepts: ConceptSet) -> str:
    """A concept set: its text, how many codes it comes to under the lock in use, and the first of them by name."""
    title = f"ConceptSet {concepts}"
    try:
        known = ontologies()
        codes = known.expand(concepts)
        titles = known.titles(codes[:_CODES])
    except FhirFeaturesError as error:
        return _card(title, str(error))
    more = len(codes) - _CODES
    count = f"{len(codes):,} codes" + (f", of which the first {_CODES}" if more > 0 else "")
    return _card(title, count, _table(("code", "name"), ((each, titles.get(each, "")) for each in codes[:_CODES])))


def receipt_html(receipt: Receipt) -> str:
    """A receipt: what the training set was made from, and the hashes of its spine and of its output."""
    views = ", ".join(f"{len(view.features)} features of {view.name}@{view.version[:12]}" for view in receipt.views)
    facts = (
        ("views", views),
        ("store", f"store_seq {receipt.store_seq}, commits {receipt.commits[:12]}"),
        ("ontologies", "lock " + ", ".join(dict.fromkeys(view.lock[:12] for view in receipt.views))),
        ("served", receipt.serving or "by the cadence of each view"),
        ("known as of", "each row's T" if receipt.known_as_of is None else receipt.known_as_of.isoformat()),
        ("program", f"fhir-features {receipt.engine.package}, duckdb {receipt.engine.duckdb}"),
        ("spine", f"{receipt.spine.rows:,} rows, {receipt.spine.sha256[:12]}"),
        ("output", f"{receipt.output.rows:,} rows, {receipt.output.sha256[:12]}"),
    )
    return _card("Receipt", _table(("what", "which"), facts))


def explanation_html(explained: Explanation) -> str:
    """An explanation: the answer, and each version that bears on it with its verdict, as `explain` prints it."""
    head = ("", "resource", "value", "true", "known", "through", "verdict")
    parts = [f"Answer as of {explained.t.isoformat()}: {_cell(explained.answer) or 'none'}"]
    if not explained.is_known:
        parts.append("The store knew no such patient then")
    for part, rows in groupby(explained.rows.to_pylist(), lambda row: row["part"]):
        parts += [part, _table(head, [_version_row(row) for row in rows])]
    return _card("Explanation", *parts)


def feature_table(view: FeatureView) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The headings and a row for each feature of a view: its name, kind, unit, window, what it is of and answers."""
    return ("feature", "kind", "unit", "window", "of", "answer"), [_feature_row(feature) for feature in view.features]


def _version_row(row: dict[str, Any]) -> Sequence[str]:
    value = row["text"] if row["number"] is None else row["number"]
    instants = _cell(row["effective_at"]), _cell(row["known_at"]), row["known_at_source"] or ""
    resource = f"{row['resource_type']}/{row['resource_id']}"
    return "*" if row["decides"] else "", resource, _cell(value), *instants, row["verdict"]


def _feature_row(feature: Feature) -> Sequence[str]:
    value = feature.value
    windows = dict.fromkeys(
        window_in_words(each.window) or "all of history" for each in leaves(value) if isinstance(each, Aggregate)
    )
    if isinstance(value, Aggregate):
        of, says = rows_in_words(value.rows), OPERATORS[value.operator].says
    elif isinstance(value, PatientFact):
        of, says = "the patient", PATIENT_OPERATORS[value.operator][1]
    else:
        of, says = in_words(value), EXPRESSIONS[value.operator].says if isinstance(value, Expression) else "a constant"
    return feature.name, kind_of(value), unit_in_words(unit_of(value)), "; ".join(windows), of, says


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value.isoformat() if isinstance(value, dt.datetime) else shorten(str(value), 80, placeholder=" ...")


def _card(title: str, *parts: str) -> str:
    """The title and under it the parts: markup, or texts, which are escaped."""
    inner = [Markup("<div>{}</div>").format(part) for part in (Markup("<strong>{}</strong>").format(title), *parts)]
    return str(Markup("<div>{}</div>").format(Markup("\n").join(inner)))


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Markup:
    names = Markup().join(Markup("<th>{}</th>").format(name) for name in head)
    lines = Markup("\n").join(
        Markup("<tr>{}</tr>").format(Markup().join(Markup("<td>{}</td>").format(str(cell)) for cell in row))
        for row in rows
    )
    return Markup(
        '<div style="overflow-x: auto"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table></div>'
    ).format(names, lines)
