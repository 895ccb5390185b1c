"""The configuration is strict: what is wrong in it is one line that names the key and says what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_features.config import RESOURCE_TYPES, Config, load_config
from fhir_features.errors import ConfigError, UsageError

FILES = '[sources.ward]\nkind = "files"\nsite = "north"\ntimezone = "Europe/Berlin"\npath = "in"\n'
SEARCH = '[sources.ward]\nkind = "search"\nsite = "north"\ntimezone = "UTC"\nbase_url = "https://fhir.example.org/r4"\n'
BULK = SEARCH.replace("search", "bulk") + 'level = "system"\n'


def loaded(folder: Path, text: str) -> Config:
    (folder / "fhir_features.toml").write_text(text)
    return load_config(folder)


def test_paths_are_relative_to_the_file(tmp_path):
    auth = 'auth = { kind = "bearer", secret_file = "token" }\n'
    config = loaded(tmp_path, '[warehouse]\npath = "store"\n' + FILES + auth)
    assert config.warehouse.path == tmp_path / "store"
    assert config.sources["ward"].path == tmp_path / "in"
    assert config.sources["ward"].auth.secret_file == tmp_path / "token"


def test_what_is_not_said_has_a_default(tmp_path):
    config = loaded(tmp_path, SEARCH)
    source = config.source("ward")
    assert config.warehouse.path == tmp_path / "warehouse"
    assert (config.warehouse.buckets, source.resource_types, source.overlap) == (32, RESOURCE_TYPES, "5min")
    assert source.setting("known_at", "Observation", ["laboratory"]) == "default"


def test_the_most_specific_known_at_policy_counts(tmp_path):
    policies = 'known_at = { Observation = "server", "Observation/laboratory" = "reported" }\n'
    source = loaded(tmp_path, SEARCH + policies).source("ward")
    assert source.setting("known_at", "Observation", ["laboratory"]) == "reported"
    assert source.setting("known_at", "Observation", ["vital-signs"]) == "server"
    assert source.setting("known_at", "Condition") == "default"
    everywhere = loaded(tmp_path, SEARCH + 'known_at = "received"\n').source("ward")
    assert everywhere.setting("known_at", "Condition") == "received"


def test_a_setting_that_leaves_out_a_type_has_its_default(tmp_path):
    settings = 'tolerance = { "Observation/laboratory" = "3d" }\ntrust_last_updated = { Observation = false }\n'
    source = loaded(tmp_path, SEARCH + settings).source("ward")
    asked = [("Observation", ["laboratory"]), ("Observation", []), ("Condition", ["laboratory"])]
    assert [source.setting("tolerance", *each) for each in asked] == ["3d", "1d", "1d"]
    assert [source.setting("trust_last_updated", *each) for each in asked] == [False, False, True]


def test_an_unknown_source_is_answered_with_the_nearest_name(tmp_path):
    with pytest.raises(UsageError, match=r"there is no source 'wrad' in fhir_features.toml: did you mean 'ward'?"):
        loaded(tmp_path, FILES).source("wrad")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[warehose]\npath = "x"', "unknown key 'warehose': did you mean 'warehouse'?"),
        ("[warehouse]\nbuckets = 0", "'warehouse.buckets': Input should be greater than or equal to 1"),
        (FILES + 'tolerance = { Observations = "1d" }', "unknown resource type in 'Observations'"),
        (FILES + 'tolerance = { Observation = "soon" }', "'sources.ward.tolerance.Observation': "),
        (FILES.replace("site", "siite"), "unknown key 'sources.ward.siite': did you mean 'site'?"),
        (FILES + 'pth = "x"', "unknown key 'sources.ward.pth': did you mean 'path'?"),
        (FILES + 'auth = { kind = "bearer", token = "x" }', "unknown key 'sources.ward.auth.token'"),
        (SEARCH + 'profile = "epik"', "'sources.ward': unknown profile 'epik': did you mean 'epic'?"),
        (SEARCH + 'next_hosts = ["https://a.b"]', "'sources.ward.next_hosts': 'https://a.b' is no host: write"),
        (FILES + "resource_types = []", "'sources.ward.resource_types': must name at least one"),
        (FILES + 'resource_types = ["Patient", "Patient"]', "'sources.ward.resource_types': must name at least one"),
        (FILES + 'known_at = "recieved"', "'sources.ward.known_at': 'recieved' is not known: did you mean 'received'?"),
        (
            FILES + 'resource_types = ["Patients"]',
            ".resource_types.0': 'Patients' is not known: did you mean 'Patient'?",
        ),
        (FILES.replace("files", "fils"), "'sources.ward.kind': 'fils' is not known: did you mean 'files'?"),
        (FILES + "known_at = server", "is no TOML: Invalid value (at line"),
        (FILES + 'known_at = { Observations = "server" }', "in 'Observations': did you mean 'Observation'?"),
        (FILES + 'overlap = "5"', "'5' is not a duration"),
        (FILES.replace("Europe/Berlin", "Berlin"), "'Berlin' is not a time zone"),
        (FILES.replace('path = "in"', ""), "'sources.ward': a source of kind 'files' needs path, and no base_url"),
        (FILES + 'base_url = "http://h"', "'sources.ward': a source of kind 'files' needs path, and no base_url"),
        (SEARCH + 'path = "in"', "'sources.ward': a source of kind 'search' needs base_url, and no path"),
        (SEARCH.replace("https://", "ftp://"), "'sources.ward.base_url': must be an address that starts with http"),
        (SEARCH.replace("fhir.example.org/r4", ""), "'sources.ward.base_url': must be an address that starts"),
        (SEARCH.replace("https://", "https://jane:s3cret@"), "'sources.ward.base_url': must be an address alone"),
        (SEARCH.replace("/r4", "/r4?x=1"), "'sources.ward.base_url': must be an address alone"),
        (SEARCH + 'auth = { kind = "bearer" }', "needs secret_env or secret_file"),
        (SEARCH + 'auth = { kind = "basic", secret_env = "X" }', "auth kind 'basic' needs user"),
        (SEARCH + 'auth = { secret_env = "X" }', "auth needs a kind"),
        (SEARCH + 'auth = { kind = "smart", client_id = "x", secret_env = "X" }', "'smart' needs key_env or key_file"),
        (SEARCH + 'auth = { kind = "smart", key_env = "X" }', "auth kind 'smart' needs client_id"),
        (SEARCH + 'auth = { kind = "bearer", secret_env = "X", kid = "1" }', "auth kind 'bearer' takes no kid"),
        (
            SEARCH + 'auth = { kind = "client-secret", client_id = "x", secret_env = "X", token_url = "h/token" }',
            "'sources.ward.auth.token_url': must be an address that starts",
        ),
        (SEARCH.replace("sources.ward", 'sources."../ward"'), "'sources': '../ward' cannot be the name of a source"),
        (SEARCH + "migrated_before = 2024-01-01", "'sources.ward.migrated_before': Input should have timezone info"),
        (SEARCH + 'level = "system"', "level and type_filters are for a source of kind 'bulk'"),
        (BULK.replace("level", "#"), "a source of kind 'bulk' needs level"),
        (BULK.replace("system", "group/"), "'sources.ward.level': String should match pattern"),
        (BULK.replace("system", "group/1") + 'resource_types = ["Observation"]', "a group is exported with Patient"),
        (BULK + 'type_filters = { Observation = ["code=a,b"] }', "'code=a,b' is no filter"),
        (BULK + 'type_filters = { Medication = ["code=a"] }', "type_filters has Medication, which resource_types"),
        ("x = ", "is no TOML: "),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(tmp_path, text, said):
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    message = str(raised.value)
    assert message.startswith(str(tmp_path / "fhir_features.toml"))
    assert said in message
    assert "\n" not in message
    assert "s3cret" not in message


def test_a_configuration_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no configuration at .*fhir_features.toml: make one with"):
        load_config(tmp_path)
