"""Up to when has a site been seen? What all of its servers have been read up to, however each of them is read."""

from __future__ import annotations

import pytest
from lake_rows import at, memory_lake

from fhir_features.lake import create_views


@pytest.mark.parametrize(
    ("seen", "watermark"),
    [
        ([("search", "a", "05"), ("search", "a", "07")], "07"),
        ([("search", "a", "05"), ("search", "b", "07")], "05"),
        ([("bulk", "group-1", "05"), ("bulk", "group-2", "07")], "05"),
        ([("bulk", "a", "05"), ("search", "b", "07")], "05"),
        ([("bulk", "a", "05"), ("files", "b", "07")], "05"),
        ([("files", "a", "05"), ("files", "b", "07")], "07"),
    ],
)
def test_a_site_is_seen_up_to_where_the_last_of_its_servers_is(seen: list[tuple[str, str, str]], watermark: str):
    con = memory_lake()
    for kind, source, day in seen:
        row = ["north", "Patient", at(f"2024-03-{day}"), kind, source, "run", 1]
        con.execute("INSERT INTO lake.watermarks VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    create_views(con, 1)
    assert con.execute("FROM watermarks").fetchall() == [("north", "Patient", at(f"2024-03-{watermark}"))]
