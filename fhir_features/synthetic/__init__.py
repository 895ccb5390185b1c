"""Invented patients: a small hospital to try the product on, without a real patient in it."""

from fhir_features.synthetic.population import TIME_ZONE, later, population
from fhir_features.synthetic.resources import Resource, write_ndjson

__all__ = ["TIME_ZONE", "Resource", "later", "population", "write_ndjson"]
