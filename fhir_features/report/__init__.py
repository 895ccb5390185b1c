"""Pages for people who would rather look than read: the report of a store, and one patient's answer explained.

Each is one HTML file that loads nothing and runs nothing. Jinja2 is imported only when a page is made.
"""

from fhir_features.report.disclosure import SUPPRESS_BELOW, Disclosure
from fhir_features.report.explained import ExplanationPage
from fhir_features.report.report import Report, make_report

__all__ = ["SUPPRESS_BELOW", "Disclosure", "ExplanationPage", "Report", "make_report"]
