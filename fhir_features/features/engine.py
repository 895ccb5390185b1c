"""What did we know about patient P at time T: the answers of a view to a table of questions.

In go a connection that reads the lake, as it stood at a store_seq, and questions (site, patient_id, t, k); out come
Arrow tables with a row a question and a column a feature. Questions are answered some buckets at a time, so that memory
is bounded by a pass and not by the number of questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from fhir_features.features.compile import Plan
from fhir_features.features.terms import create_conversions, create_resolved
from fhir_features.lake import bucket_count, bucket_sql, create_views
from fhir_features.ontology import Ontologies

# How many answers (questions times features) one pass holds in memory: about 400 MB of aggregate states.
_ANSWERS_A_PASS = 4_000_000


def stand_at(con: duckdb.DuckDBPyConnection, known: Ontologies, store_seq: int) -> None:
    """Let the connection show the lake after commit `store_seq`, its codes resolved under the lock."""
    create_views(con, store_seq)
    create_resolved(con, known)


def ask(con: duckdb.DuckDBPyConnection, questions: pa.Table) -> None:
    """Put questions (question, site, patient_id, t, k) to the connection, replacing those before.

    `question` is a distinct whole number; t and k are UTC instants, K of TIME rule 1 never later than T.
    """
    con.register("questions_in", questions)
    bucket = bucket_sql("site", "patient_id", bucket_count(con))
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE asked AS
SELECT question, site, {bucket} AS bucket, patient_id, t, k
FROM questions_in
ORDER BY bucket, site, patient_id, t, k""")
    con.unregister("questions_in")


def answers(
    con: duckdb.DuckDBPyConnection, known: Ontologies, plan: Plan, *, questions_a_pass: int | None = None
) -> Iterator[pa.Table]:
    """The answers to what was asked, as tables of the plan's schema, in the order of buckets.

    `create_members` must have been called for the plan.
    """
    if "observations" in plan.selections:
        create_conversions(con, known, plan.selections["observations"])
    size = questions_a_pass or max(1, _ANSWERS_A_PASS // len(plan.features))
    for first, last in _passes(con, size):
        answered = con.execute(plan.sql, {"first_bucket": first, "last_bucket": last}).to_arrow_table()
        yield answered.cast(plan.schema)


def _passes(con: duckdb.DuckDBPyConnection, size: int) -> list[tuple[int, int]]:
    """Ranges of buckets with at most `size` questions each, or one bucket."""
    counts: Sequence[tuple[int, int]] = con.execute(
        "SELECT bucket, count(*) FROM asked GROUP BY bucket ORDER BY bucket"
    ).fetchall()
    passes: list[tuple[int, int]] = []
    held = 0
    for bucket, count in counts:
        if passes and held + count <= size:
            passes[-1] = (passes[-1][0], bucket)
            held += count
        else:
            passes.append((bucket, bucket))
            held = count
    return passes
