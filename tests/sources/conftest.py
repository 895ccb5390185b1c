from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bulk_server import BulkServer
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

    def write(*lines: str, types: str = '"Patient"', base_url: str | None = None, page_size: int = 10) -> Config:
        common = ('kind = "search"', f"page_size = {page_size}")
        return _configured(tmp_path, base_url or server.base, types, *common, *lines)

    return write


@pytest.fixture
def exports(server: FhirServer) -> BulkServer:
    return BulkServer(server)


@pytest.fixture
def exporting(exports: BulkServer, tmp_path: Path) -> Callable[..., Config]:
    """A configuration whose source `ward` is exported by the server, with more lines for that source."""

    def write(*lines: str, types: str = '"Patient", "Observation"', level: str = "system") -> Config:
        where = ('kind = "bulk"', f'level = "{level}"', 'overlap = "10min"')
        return _configured(tmp_path, exports.server.base, types, *where, *lines)

    return write


def _configured(folder: Path, base_url: str, types: str, *lines: str) -> Config:
    common = ('site = "north"', 'timezone = "UTC"', f'base_url = "{base_url}"', f"resource_types = [{types}]")
    (folder / "fhir_features.toml").write_text("\n".join(("[sources.ward]", *common, *lines)))
    return load_config(folder)
