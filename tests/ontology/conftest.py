"""The shipped ontologies, loaded once.

Being here puts this folder on the path, so that the tests can import `dictionaries` and `releases`.
"""

import pytest

from fhir_features.ontology import Ontologies, load_ontologies
from fhir_features.ontology.systems import shipped_folder


@pytest.fixture(scope="session")
def ontologies() -> Ontologies:
    return load_ontologies(shipped_folder())
