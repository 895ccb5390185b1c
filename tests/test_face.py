"""What an editor and a type checker see of the package is what a program gets: its names, signatures and docstrings."""

from __future__ import annotations

import inspect

import jedi
import pytest

import fhir_features

BEGUN = "from fhir_features import FeatureStore, FeatureView, condition, observation, patient, spine\n"


def signatures(written: str) -> list[str]:
    return [signature.to_string() for signature in jedi.Script(BEGUN + written).get_signatures()]


def completions(written: str) -> set[str]:
    return {completion.name for completion in jedi.Script(BEGUN + written).complete()}


def test_it_names_what_is_in_it_and_nothing_else():
    assert dir(fhir_features) == sorted(fhir_features.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'observations'"):
        _ = fhir_features.observations


@pytest.mark.parametrize("name", fhir_features.__all__)
def test_an_editor_finds_what_a_program_gets(name: str):
    """The names are loaded late, so that an editor reads them from another place, which could be another thing."""
    loaded = getattr(fhir_features, name)
    assert inspect.getdoc(loaded)
    (found,) = jedi.Script(f"from fhir_features import {name}\n{name}").infer()
    kind = type(loaded) if name == "patient" else loaded
    assert found.full_name == (kind.__name__ if name == "spine" else f"{kind.__module__}.{kind.__qualname__}")


@pytest.mark.parametrize(
    ("written", "begins"),
    [
        ("FeatureStore(", "FeatureStore(path:"),
        ("FeatureStore('.').get_historical_features(", "get_historical_features(entity_df:"),
        ("observation('loinc:4548-4').last(", "last(*, within:"),
        ("condition('icd10cm:E11').ever().named(", "named(name: str, description:"),
        ("spine.encounters(", "encounters(at: str"),
        ("FeatureView(", "FeatureView(name: str"),
    ],
)
def test_an_editor_shows_signatures(written: str, begins: str):
    (shown,) = signatures(written)
    assert shown.startswith(begins)


@pytest.mark.parametrize(
    ("written", "offers"),
    [
        ("FeatureStore('.').", {"pull", "normalize", "get_historical_features", "explain", "report"}),
        ("FeatureStore('.').get_historical_features(rows, []).", {"to_polars", "to_df", "summary", "receipt", "save"}),
        ("observation('loinc:4548-4').", {"last", "mean", "where"}),
        ("patient.", {"age", "sex", "deceased"}),
        ("spine.", {"encounters", "grid", "first"}),
    ],
)
def test_an_editor_completes(written: str, offers: set[str]):
    assert offers <= completions(written)
