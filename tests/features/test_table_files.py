"""What a file of a feature table was written with is known from the digest beside it, if that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_features.features.table_files import digest_file, recorded_digest


@pytest.mark.parametrize("written", [None, b"", b"0123", b"\xff\xfe  table.parquet\n", b"0123  other.parquet\n"])
def test_a_digest_that_cannot_be_read_is_none(tmp_path: Path, written: bytes | None) -> None:
    file = tmp_path / "table.parquet"
    if written is not None:
        digest_file(file).write_bytes(written)
    assert recorded_digest(file) == ""


def test_a_digest_is_that_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    digest_file(file).write_text("0123  table.parquet\n")
    assert recorded_digest(file) == "0123"
