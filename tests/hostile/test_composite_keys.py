"""A patient is (site, patient_id), whatever these are: no two pairs meet, anywhere. 100,000 pairs that are made to."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from lake_rows import LakeRows, at, memory_lake, refill

from fhir_features.features import patient
from fhir_features.features.compile import compile_features
from fhir_features.features.engine import answers, ask
from fhir_features.lake import bucket_sql, create_views

PAIRS = 100_000
# What joins, ends, quotes, escapes or looks like something else: in keys, in SQL, in paths, and to the eye.
PIECES = [
    *("1", "11", "111", "0", "01", "1:", ":1", "a", "A", "aa", "\u0430", "\uff11", "\u00b9", "\u0661"),
    *("/", "\\", "|", "||", ",", ";", ":", "::", "_", "-", ".", "..", "../", "#", "@", "=", "&", "%", "%00", "$1", "?"),
    *("'", "''", '"', '""', "`", "'; DROP TABLE lake.patients; --", "<b>", "{}", "[]", "null", "None", "nan", "\\N"),
    *(" ", "  ", "\t", "\n", "\r\n", "\0", "\x1f", "\x7f", "\u00a0", "\u200b", "\ufeff", "\u2028", "\u202e"),
    *(
        "\u00e9",
        "e\u0301",
        "\u00c5",
        "A\u030a",
        "\u212b",
        "\ufb01",
        "fi",
        "\u1e9e",
        "\u00df",
        "ss",
        "\u0130",
        "i\u0307",
    ),
    *("\ud55c", "\u1112\u1161\u11ab", "\U0001f469\u200d\U0001f4bb", "\U0010ffff", "x" * 300),
]


def pairs() -> list[tuple[str, str]]:
    """Pairs of which many are one text when joined, and many one when normalized; the empty text is a site and an id."""
    words = ["", *PIECES, *(a + b for a, b in itertools.product(PIECES, PIECES))]
    near = ((site, f"{rest}{patient_id}") for site in words[:80] for rest in PIECES[:36] for patient_id in PIECES[:36])
    split = ((text[:at], text[at:]) for text in words for at in range(min(len(text), 8) + 1))
    found = dict.fromkeys(itertools.chain(split, near))
    return list(found)[:PAIRS]


@pytest.fixture(scope="module")
def made() -> list[tuple[str, str]]:
    found = pairs()
    assert len(found) == len(set(found)) == PAIRS
    # They are made to meet: joined, or in one form of Unicode, thousands do.
    assert len({site + patient_id for site, patient_id in found}) < 0.9 * PAIRS
    assert (
        len({(unicodedata.normalize("NFKC", site), unicodedata.normalize("NFKC", id)) for site, id in found})
        < PAIRS - 1000
    )
    return found


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    con = memory_lake()
    yield con
    con.close()


def frame(of: list[tuple[str, str]]) -> pa.Table:
    return pa.table({"site": [site for site, _ in of], "patient_id": [id for _, id in of], "n": range(len(of))})


def test_no_two_pairs_are_one_where_they_are_grouped_and_joined(
    con: duckdb.DuckDBPyConnection, made: list[tuple[str, str]]
) -> None:
    con.register("made", frame(made))
    distinct = "SELECT count(*) FROM (SELECT DISTINCT site, patient_id FROM made)"
    assert con.execute(distinct).fetchone() == (PAIRS,)
    joined = "SELECT count(*), count(*) FILTER (WHERE a.n = b.n) FROM made a JOIN made b USING (site, patient_id)"
    assert con.execute(joined).fetchone() == (PAIRS, PAIRS)


def test_what_the_bucket_is_a_hash_of_differs_and_buckets_are_even(
    con: duckdb.DuckDBPyConnection, made: list[tuple[str, str]]
) -> None:
    con.register("made", frame(made))
    hashed = bucket_sql("site", "patient_id", 32)
    text = hashed[hashed.index("concat(") : hashed.index(") %")]
    assert con.execute(f"SELECT count(DISTINCT {text}) FROM made").fetchone() == (PAIRS,)
    sizes = [rows for (rows,) in con.execute(f"SELECT count(*) FROM made GROUP BY {hashed}").fetchall()]
    assert len(sizes) == 32
    assert 0.9 * PAIRS / 32 < min(sizes) <= max(sizes) < 1.1 * PAIRS / 32


def test_the_engine_answers_each_pair_with_its_own(con: duckdb.DuckDBPyConnection, made: list[tuple[str, str]]) -> None:
    some = [made[n] for n in np.random.default_rng(1).choice(PAIRS, 500, replace=False)]
    some += [("1", "11"), ("11", "1"), ("", "111"), ("111", ""), ("e\u0301", "1"), ("\u00e9", "1")]
    some = list(dict.fromkeys(some))
    rows = LakeRows()
    for number, (site, patient_id) in enumerate(some):
        rows.patient(patient_id, site, sex=f"{number}")
    refill(con, rows)
    create_views(con, 1)
    instant = pa.array([at("2030-01-01")] * len(some), pa.timestamp("us", tz="UTC"))
    ask(con, frame(some).rename_columns({"n": "question"}).append_column("t", instant).append_column("k", instant))
    told = pa.concat_tables(answers(con, compile_features((patient.sex().named("sex"),)))).sort_by("question")
    assert told["sex"].to_pylist() == [f"{number}" for number in range(len(some))]


def test_no_two_pairs_have_one_entity_key_of_feast(made: list[tuple[str, str]]) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    def key(site: str, patient_id: str) -> bytes:
        values = [Value(string_val=site), Value(string_val=patient_id)]
        return serialize_entity_key(EntityKey(join_keys=["site", "patient_id"], entity_values=values), 3)

    assert len({key(*pair) for pair in made}) == PAIRS
