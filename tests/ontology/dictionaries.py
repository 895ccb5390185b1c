"""Codings as a dictionary has them: what the resolver takes."""

import pyarrow as pa

CODING = pa.schema(
    [
        ("code_id", pa.int64()),
        ("ordinal", pa.int16()),
        ("system", pa.string()),
        ("code", pa.string()),
        ("version", pa.string()),
        ("display", pa.string()),
        ("user_selected", pa.bool_()),
    ]
)

URI = {
    "icd10cm": "http://hl7.org/fhir/sid/icd-10-cm",
    "icd9cm": "http://hl7.org/fhir/sid/icd-9-cm",
    "snomed": "http://snomed.info/sct",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "loinc": "http://loinc.org",
    "ndc": "http://hl7.org/fhir/sid/ndc",
}


def codings(*rows: tuple[object, ...]) -> pa.Table:
    """A dictionary from (code_id, system, code[, display[, user_selected]]); a known system may be a short name."""
    ordinals: dict[object, int] = {}
    full = []
    for code_id, system, code, *rest in rows:
        ordinals[code_id] = ordinals.get(code_id, -1) + 1
        display, selected = (*rest, None, None)[:2]
        system = URI.get(str(system), system)
        full.append(
            {
                "code_id": code_id,
                "ordinal": ordinals[code_id],
                "system": system,
                "code": code,
                "display": display,
                "user_selected": selected,
            }
        )
    return pa.Table.from_pylist(full, schema=CODING)
