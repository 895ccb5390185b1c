from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fhir_server import FhirServer

from fhir_features.config import Config, load_config
from fhir_features.sources import transport


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FhirServer]:
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.001)
    server = FhirServer()
    yield server
    server.stop()


@pytest.fixture
def searching(server: FhirServer, tmp_path: Path) -> Callable[..., Config]:
    """A configuration whose source `ward` searches the server, with more lines for that source."""

    def write(*lines: str, types: str = '"Patient"', base_url: str | None = None) -> Config:
        (tmp_path / "fhir_features.toml").write_text(
            f"""
            [sources.ward]
            kind = "search"
            site = "north"
            timezone = "UTC"
            base_url = "{base_url or server.base}"
            resource_types = [{types}]
            page_size = 10
            """
            + "\n".join(lines)
        )
        return load_config(tmp_path)

    return write
