"""Against a FHIR server that others wrote, which wants SMART tokens that soon expire: an export and a search of it end in
the same tables, and whoever joins a group brings their history."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from landing import observation, patient, rows

from examples.fhir_server import fhir_server
from fhir_features.config import Config, load_config
from fhir_features.errors import SourceIncomplete
from fhir_features.normalize import normalize
from fhir_features.sources import examine, landed_runs, pull

PROGRAM = Path(__file__).parents[2] / ".venv-fhir" / "bin" / "sekmet"
# An export takes longer: the server lets everyone poll at least twice, a second apart.
TOKENS_LIVE_S = 2

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(), reason="no FHIR server here: 'make test' and 'make demo' install it"
)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory, key: ec.EllipticCurvePrivateKey) -> Iterator[str]:
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    client = {"client_id": "fs", "jwks": {"keys": [public]}, "scopes": "system/*.rs"}
    auth = {
        "types": ["smart", "bearer"],
        "tokens": ["writer"],
        "token_lifetime": TOKENS_LIVE_S,
        "smart_clients": [client],
    }
    settings = f"server_auth: {json.dumps(auth)}\n"
    with fhir_server(PROGRAM, tmp_path_factory.mktemp("real") / "server", settings) as base_url:
        write(base_url, *(patient(f"p{number}") for number in range(6)), *(result(number, 7.5) for number in range(18)))
        write(base_url, group(range(5)))
        yield base_url


def result(number: int, value: float) -> dict[str, Any]:
    subject = {"reference": f"Patient/p{number % 6}"}
    return observation(f"o{number}", subject=subject, valueQuantity={"value": value, "unit": "%"})


def group(members: range) -> dict[str, Any]:
    entities = [{"entity": {"reference": f"Patient/p{number}"}} for number in members]
    return {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": entities}


def write(base_url: str, *resources: dict[str, Any]) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer writer"
        for each in resources:
            session.put(f"{base_url}/{each['resourceType']}/{each['id']}", json=each).raise_for_status()
    # The server's clock says whole seconds: what was written in the same one would lie beyond a watermark.
    time.sleep(1)


def configured(folder: Path, base_url: str, key: ec.EllipticCurvePrivateKey, *levels: str) -> Config:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(pem)
    auth = 'kind = "smart", client_id = "fs", key_file = "key"'
    search = f'[sources.search]\nkind = "search"\nsite = "search"\nauth = {{ {auth} }}\n'
    bulk = [
        f'[sources.bulk{number}]\nkind = "bulk"\nlevel = "{level}"\nsite = "{level}"\n'
        # This server does not let anyone export who may not read everything.
        f'auth = {{ {auth}, scopes = ["system/*.read"] }}\n'
        for number, level in enumerate(levels)
    ]
    common = f'timezone = "UTC"\nbase_url = "{base_url}"\noverlap = "1s"\nresource_types = ["Patient", "Observation"]\n'
    (folder / "fhir_features.toml").write_text("".join(each + common for each in (search, *bulk)))
    return load_config(folder)


def states(config: Config) -> dict[str, list[tuple[Any, ...]]]:
    """By site, what the server holds as far as the warehouse knows."""
    found = rows(
        config,
        "SELECT site, resource_id, version, value_number, known_at FROM observations WHERE known_to IS NULL "
        "UNION ALL SELECT DISTINCT site, resource_id, version, NULL, NULL FROM patients WHERE known_to IS NULL "
        "ORDER BY ALL",
    )
    sites = sorted({site for site, *_ in found})
    return {each: [tuple(row) for site, *row in found if site == each] for each in sites}


def test_exports_and_searches_end_in_the_same_tables(base_url: str, key: ec.EllipticCurvePrivateKey, tmp_path: Path):
    config = configured(tmp_path, base_url, key, "system", "group/g")
    pull(config)
    corrected = [result(number, 8.5) for number in range(0, 18, 4)]
    write(base_url, *corrected, group(range(6)))
    second = pull(config)
    assert {of.resource_type: of.landed for of in second[1].types} == {"Patient": 0, "Observation": len(corrected)}
    assert all(summary.quarantined == 0 for summary in normalize(config))
    found = states(config)
    assert set(found) == {"search", "system", "group/g"}
    assert len(found["search"]) == 6 + 18
    assert len([row for row in found["search"] if row[2] == 8.5]) == len(corrected)
    assert found["system"] == found["group/g"] == found["search"]
    # The history of the one who joined came apart from what changed.
    newest = landed_runs(config.warehouse.path / "landing")[-1]
    assert [file.lines for file in newest.files if file.backfill] == [3]


def test_doctor_finds_nothing_to_change(base_url: str, key: ec.EllipticCurvePrivateKey, tmp_path: Path):
    config = configured(tmp_path, base_url, key, "system", "group/g")
    assert {check.verdict for name in config.sources for check in examine(config, name)} == {"works"}


def write_for_a_while(base_url: str) -> None:
    """Corrections and deletions, for longer than two tokens live."""
    dice, until = random.Random(3), time.monotonic() + 2.5 * TOKENS_LIVE_S
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer writer"
        while time.monotonic() < until:
            number = dice.randrange(24)
            url = f"{base_url}/Observation/o{number}"
            body = result(number, round(dice.uniform(5, 9), 1))
            done = session.delete(url) if dice.random() < 0.3 else session.put(url, json=body)
            done.raise_for_status()
            time.sleep(0.05)


def test_a_pull_over_several_tokens_ends_as_the_server_does_though_it_was_written_to_meanwhile(
    base_url: str, key: ec.EllipticCurvePrivateKey, tmp_path: Path
):
    config = configured(tmp_path, base_url, key)
    writer = threading.Thread(target=write_for_a_while, args=(base_url,))
    writer.start()
    while writer.is_alive():
        with contextlib.suppress(SourceIncomplete):
            pull(config)
        time.sleep(1)  # Each run is a commit, which takes as long.
    writer.join()
    write(base_url)
    pull(config)
    assert all(summary.quarantined == 0 for summary in normalize(config))
    held = dict(rows(config, "SELECT DISTINCT resource_id, version FROM observations WHERE known_to IS NULL"))
    answer = requests.get(f"{base_url}/Observation?_count=1000", headers={"Authorization": "Bearer writer"}, timeout=60)
    on_server = [each["resource"] for each in answer.json()["entry"]]
    assert held == {each["id"]: each["meta"]["versionId"] for each in on_server}
