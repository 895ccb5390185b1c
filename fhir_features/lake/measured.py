"""In which units did the numbers of each code come? A dictionary that grows with the results: what a feature may have
to convert, without a look through all of them."""

from __future__ import annotations

import duckdb


def add_measured_units(con: duckdb.DuckDBPyConnection, results: str, store_seq: int) -> None:
    """Add to the dictionary what it lacks of a relation of results (code_id, unit_id, value_number): of the commit's
    own at least, since no number is converted without its row here."""
    con.execute(f"""
INSERT INTO lake.measured_units
SELECT *, {store_seq}
FROM (
  SELECT DISTINCT code_id, unit_id
  FROM {results}
  WHERE value_number IS NOT NULL
  EXCEPT
  SELECT code_id, unit_id
  FROM lake.measured_units
)
ORDER BY ALL""")
