"""Invented patients: a small hospital to try the product on, without a real patient in it."""

from fhir_features.synthetic.population import TIME_ZONE, later, population
from fhir_features.synthetic.resources import Resource, write_ndjson
from fhir_features.synthetic.ward import ward

__all__ = ["TIME_ZONE", "Resource", "later", "population", "ward", "write_ndjson"]
