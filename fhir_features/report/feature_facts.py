"""What do the features answer, and for how many do they not? In goes a connection that reads the lake, the views, and
by site the instant to ask at; out comes for each feature and site how many answers are null and how the others are
distributed. Each patient is asked about once, by the engine that answers in training and in serving.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from fhir_features.features.compile import Plan, compile_features, kind_of
from fhir_features.features.engine import answers, ask
from fhir_features.features.nodes import Feature
from fhir_features.features.spine import INSTANT
from fhir_features.features.terms import create_members
from fhir_features.features.wording import in_words, unit_of
from fhir_features.lake import identifier
from fhir_features.ontology import Ontologies
from fhir_features.report.disclosure import Disclosure, share
from fhir_features.report.facts import Bin, FeatureFacts, Quantiles, Values

# As many columns a histogram has at most between the 1st and the 99th percentile; fewer, where few patients would
# leave most of them untold.
_MOST_COLUMNS, _FEWEST_COLUMNS = 16, 4
_FILL = 3
# As many words of a feature that gives text are told.
_MOST_WORDS = 12
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def asked_at(con: duckdb.DuckDBPyConnection) -> dict[str, dt.datetime]:
    """By site the full hour after a version was first known for the last time: there the features are asked.

    An export of years ago has ends of stays and orders that are known from its receipt: asked then, a window of a year
    would have nothing in it. The instant itself is one patient's.
    """
    rows = con.execute("SELECT site, max(first_known_at) FROM received_versions GROUP BY site ORDER BY site").fetchall()
    return {site: _full_hour(newest.astimezone(dt.UTC)) for site, newest in rows}


def _full_hour(instant: dt.datetime) -> dt.datetime:
    """The first full hour that is not before an instant."""
    hour = instant.replace(minute=0, second=0, microsecond=0)
    return hour if hour == instant else hour + dt.timedelta(hours=1)


def ask_all_patients(con: duckdb.DuckDBPyConnection, instants: dict[str, dt.datetime]) -> None:
    """Ask about each patient of the sites once, at the site's instant, with what was known then."""
    con.register("instants", pa.table({"site": list(instants), "t": pa.array(instants.values(), INSTANT)}))
    questions = con.execute("""
SELECT row_number() OVER (ORDER BY site, patient_id) - 1 AS question, site, patient_id, t, t AS k
FROM (SELECT DISTINCT site, patient_id FROM patients)
JOIN instants USING (site)
ORDER BY question""").to_arrow_table()
    con.unregister("instants")
    ask(con, questions)


def feature_facts(
    con: duckdb.DuckDBPyConnection, known: Ontologies, features: Sequence[Feature], told: Disclosure
) -> tuple[FeatureFacts, ...]:
    """What the features of a view answer to what was asked (`ask_all_patients`)."""
    plan = compile_features(tuple(features))
    create_members(con, known, plan)
    _create_answered(con, known, plan)
    return tuple(
        FeatureFacts(
            feature.name,
            feature.description,
            in_words(feature.value),
            unit_of(feature.value),
            kind_of(feature.value),
            tuple(_values(con, feature, told)),
        )
        for feature in plan.features
    )


def _create_answered(con: duckdb.DuckDBPyConnection, known: Ontologies, plan: Plan) -> None:
    """Keep the answers, pass by pass, in the temporary table `answered`, which can be larger than memory."""
    con.register("no_answers", plan.schema.empty_table())
    con.execute("CREATE OR REPLACE TEMP TABLE answered AS SELECT NULL::VARCHAR AS site, * FROM no_answers")
    con.unregister("no_answers")
    for part in answers(con, plan):
        con.register("part", part)
        con.execute(
            "INSERT INTO answered SELECT site, part.* FROM part JOIN asked USING (question) JOIN persons USING (person)"
        )
        con.unregister("part")


def _values(con: duckdb.DuckDBPyConnection, feature: Feature, told: Disclosure) -> Iterator[Values]:
    """The answers to a feature, site by site."""
    column = identifier(feature.name)
    numeric = kind_of(feature.value) in ("number", "count")
    shares = f", quantile_disc({column}::DOUBLE, {list(_SHARES)})" if numeric else ", NULL"
    counts = con.execute(f"""
SELECT site, count(*), count(*) - count({column}){shares}
FROM answered
GROUP BY site
ORDER BY site""").fetchall()
    nulls = {site: missing for site, _, missing, _ in counts}
    bins = (_histogram if numeric else _words)(con, feature, nulls, told)
    for site, patients, missing, quantiles in counts:
        pairs = zip(quantiles or (), _SHARES, strict=False)
        of_it = [told.quantile(value, at, patients - missing) for value, at in pairs]
        may_count = told.count(patients), told.count(missing)
        yield Values(
            site,
            *may_count,
            share(may_count[1], may_count[0]),
            Quantiles(*of_it) if of_it else None,
            bins.get(site, ()),
        )


@dataclass(frozen=True)
class _Columns:
    """The columns of a histogram: where the first begins, how wide each is, how many there are, and whether its values
    are whole numbers."""

    start: float
    width: float
    number: int
    whole: bool


def _columns(low: float, high: float, number: int, *, whole: bool) -> _Columns:
    """About so many columns between two values, whose edges are round numbers: no patient's value is one."""
    spread = high - low or abs(low) or 1.0
    least = max(spread / number, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(least))
    width = next(power * step for step in (1, 2, 5, 10) if power * step >= least * 0.999)
    start = math.floor(low / width) * width
    return _Columns(start, width, max(1, math.floor((high - start) / width) + 1), whole)


def _histogram(
    con: duckdb.DuckDBPyConnection, feature: Feature, nulls: dict[str, int], told: Disclosure
) -> dict[str, tuple[Bin, ...]]:
    """By site the columns of a histogram, which are the same everywhere; the outer two are open."""
    column = identifier(feature.name)
    found = con.execute(
        f"SELECT quantile_disc({column}::DOUBLE, [0.01, 0.99]), count({column}) FROM answered"
    ).fetchone()
    assert found is not None
    if found[0] is None:
        return {}
    (low, high), patients = found
    columns = _MOST_COLUMNS
    if not told.tells_all:
        columns = min(columns, max(_FEWEST_COLUMNS, patients // (_FILL * told.suppress_below)))
    wide = _columns(low, high, columns, whole=kind_of(feature.value) == "count")
    rows = con.execute(
        f"""
SELECT site, greatest(-1, least(?, floor(({column}::DOUBLE - ?) / ?)))::INTEGER, count(*)
FROM answered
WHERE {column} IS NOT NULL
GROUP BY ALL""",
        [wide.number, wide.start, wide.width],
    ).fetchall()
    used = {place for _, place, _ in rows}
    places = [place for place in range(-1, wide.number + 1) if 0 <= place < wide.number or place in used]
    of_sites: dict[str, tuple[Bin, ...]] = {}
    for site in sorted({row[0] for row in rows}):
        counts = dict.fromkeys(places, 0) | {place: number for of, place, number in rows if of == site}
        divided = told.division(counts, [nulls[site]])
        of_sites[site] = tuple(_column(wide, place, count) for place, count in divided.items())
    return of_sites


def _column(wide: _Columns, place: int, count: int | None) -> Bin:
    begins, ends = (float(f"{wide.start + edge * wide.width:.6g}") for edge in (place, place + 1))
    if place < 0:
        return Bin(f"below {ends:g}", None, count)
    if place == wide.number:
        return Bin(f"{begins:g} and above", begins, count)
    is_one = wide.whole and wide.width == 1
    return Bin(f"{begins:g}" if is_one else f"{begins:g} to {ends:g}", begins, count)


def _words(
    con: duckdb.DuckDBPyConnection, feature: Feature, nulls: dict[str, int], told: Disclosure
) -> dict[str, tuple[Bin, ...]]:
    """By site how often each word is the answer; those that too few patients have are not told, nor how they read."""
    column = identifier(feature.name)
    rows = con.execute(f"""
SELECT site, {column}::VARCHAR AS word, count(*) AS patients
FROM answered
WHERE {column} IS NOT NULL
GROUP BY ALL
ORDER BY site, patients DESC, word""").fetchall()
    found: dict[str, tuple[Bin, ...]] = {}
    for site in dict.fromkeys(row[0] for row in rows):
        own = {word: patients for of, word, patients in rows if of == site}
        common = dict([(word, number) for word, number in own.items() if told.may_tell(number)][:_MOST_WORDS])
        others = sum(own.values()) - sum(common.values())
        divided = told.division(common, [others, nulls[site]])
        named = {word: count for word, count in divided.items() if count}
        rest = sum(own.values()) - sum(common[word] for word in named)
        found[site] = tuple(Bin(word, None, count) for word, count in named.items())
        if named and rest:
            found[site] += (Bin("other answers", None, told.count(rest)),)
    return found
