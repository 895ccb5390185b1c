"""What does an Observation, or a component of one, say: its code and its value? One of them in, these columns of its
raw row out. A value that cannot be understood is raised as `Unusable`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fhir_features.normalize import structs as fhir
from fhir_features.normalize.codes import Dictionary
from fhir_features.normalize.elements import Unusable, code, codes

VALUE_COLUMNS = (
    ("code_id", pa.int64()),
    ("code_text", pa.string()),
    ("value_type", pa.string()),
    ("value_number", pa.float64()),
    ("value_comparator", pa.string()),
    ("unit_id", pa.int64()),
    ("value_code_id", pa.int64()),
    ("value_string", pa.string()),
    ("value_boolean", pa.bool_()),
    ("value_start_text", pa.string()),
    ("value_end_text", pa.string()),
    ("value_low", pa.float64()),
    ("value_high", pa.float64()),
    ("value_json", pa.string()),
    ("absent_reason", pa.string()),
    ("interpretations", pa.list_(pa.string())),
    ("reference_low", pa.float64()),
    ("reference_high", pa.float64()),
    ("reference_text", pa.string()),
)

_COMPARATORS = frozenset({None, "<", "<=", ">=", ">"})
_NO_PERIOD, _NO_RANGE = fhir.Period(), fhir.Range()


def value_row(v: fhir.Valued, path: str, dictionary: Dictionary) -> tuple[Any, ...]:
    """What an Observation, or a component of one at a JSON path, has in these columns. Raises Unusable."""
    value_type = _value_type(v, path)
    quantity = v.value_quantity
    if quantity is not None and quantity.comparator not in _COMPARATORS:
        raise Unusable("code", f"{path}.valueQuantity.comparator", "its comparator is none of FHIR R4's")
    number = quantity.value if quantity else v.value_integer
    period = v.value_period or _NO_PERIOD
    bounds = v.value_range or _NO_RANGE
    ranged = _normal_range(v.reference_range) if v.reference_range else None
    kept = v.value_ratio if v.value_ratio is not fhir.ABSENT else v.value_sampled_data
    return (
        dictionary.code_id(v.code),
        v.code.text if v.code else None,
        value_type,
        number,
        quantity.comparator if quantity else None,
        dictionary.unit_id(quantity or bounds.low or bounds.high),
        dictionary.code_id(v.value_codeable_concept),
        _value_text(v),
        v.value_boolean,
        v.value_date_time or period.start,
        v.value_date_time or period.end,
        bounds.low.value if bounds.low else None,
        bounds.high.value if bounds.high else None,
        None if kept is fhir.ABSENT else bytes(kept).decode(),
        code(v.data_absent_reason),
        codes(v.interpretation) if v.interpretation else (),
        _limit(ranged.low, quantity) if ranged else None,
        _limit(ranged.high, quantity) if ranged else None,
        ranged.text if ranged else None,
    )


_VALUE_TYPES = (
    "Quantity", "CodeableConcept", "string", "boolean", "integer", "Range", "Ratio", "SampledData", "time", "dateTime",
    "Period",
)  # fmt: skip


def _value_type(v: fhir.Valued, path: str) -> str | None:
    values = (
        v.value_quantity,
        v.value_codeable_concept,
        v.value_string,
        v.value_boolean,
        v.value_integer,
        v.value_range,
        None if v.value_ratio is fhir.ABSENT else v.value_ratio,
        None if v.value_sampled_data is fhir.ABSENT else v.value_sampled_data,
        v.value_time,
        v.value_date_time,
        v.value_period,
    )
    absent = values.count(None)
    if absent == len(values) - 1 and values[0] is not None:
        return "Quantity"
    present = [name for name, value in zip(_VALUE_TYPES, values, strict=True) if value is not None]
    if len(present) > 1:
        raise Unusable("value", f"{path}.value[x]", f"it has {len(present)} values: {', '.join(present)}")
    return present[0] if present else None


def _value_text(v: fhir.Valued) -> str | None:
    if v.value_codeable_concept is not None:
        return v.value_codeable_concept.text
    return v.value_string if v.value_string is not None else v.value_time


def _normal_range(ranges: Sequence[fhir.ReferenceRange]) -> fhir.ReferenceRange | None:
    """The first reference range that is the normal one: an absent type means normal.

    https://hl7.org/fhir/R4/observation-definitions.html#Observation.referenceRange.type
    """
    for each in ranges:
        if each.type is None or "normal" in codes([each.type]):
            return each
    return None


def _limit(limit: fhir.Quantity | None, quantity: fhir.Quantity | None) -> float | None:
    """The number of a limit that can be compared with a value as it is: in the same unit, or stated without one."""
    if limit is None:
        return None
    if quantity is not None and limit.code is not None and limit.code == quantity.code:
        return limit.value
    units = {limit.code, limit.unit} - {None}
    return limit.value if quantity is None or not units or units & {quantity.code, quantity.unit} else None
