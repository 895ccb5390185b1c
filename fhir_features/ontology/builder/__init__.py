"""How are the shipped artifacts made? `python -m fhir_features.ontology.builder` makes all of them again.

In: packages of fixed version and hash from the Python package index, which carry the public releases, and the tables
that we wrote ourselves and that lie in `ontologies/`. Out: every artifact below `ontologies/` and the lock. The same
sources give the same hashes; a folder that stands with other content is an error, never overwritten.
"""
