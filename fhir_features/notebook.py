"""How do views, training sets and concept sets look in a notebook? In goes one of them, out comes a piece of HTML.

It has no colours, so that it is light or dark as the notebook is, no script, and escapes every text that it is given.
The version of a view and the codes of a set are looked up when they are first shown, and kept; the hash of a training
set, which reads all of it, is shown where its receipt has been made already.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from markupsafe import Markup

from fhir_features.errors import FhirFeaturesError
from fhir_features.features.compile import kind_of, leaves
from fhir_features.features.nodes import Aggregate, Expression, Feature, PatientFact
from fhir_features.features.operators import EXPRESSIONS, OPERATORS, PATIENT_OPERATORS
from fhir_features.features.terms import ontologies
from fhir_features.features.wording import in_words, rows_in_words, unit_in_words, unit_of, window_in_words

if TYPE_CHECKING:
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
    rows = [_feature_row(feature) for feature in view.features]
    head = ("feature", "kind", "unit", "window", "of", "answer")
    return _card(f"FeatureView {view.name}", f"{view.cadence}, version {version}", _table(head, rows))


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


def _feature_row(feature: Feature) -> Sequence[object]:
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
