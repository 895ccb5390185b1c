"""Is a resource that can be normalized also valid FHIR? In goes its text; out come findings: where, and which rule.

The models are those of fhir.resources, of FHIR R4B: R4's are no longer kept, and the elements that are read here are
the same in both (https://hl7.org/fhir/R4B/diff.html). What would change a meaning is refused before, of every resource,
by the decoder: codes outside of their required value sets, wrong JSON types, modifiers that nobody explained. So a
finding sets nothing aside.
"""

from __future__ import annotations

import zlib
from enum import StrEnum
from functools import cache
from typing import Any

_ONE_IN = 256


class Validation(StrEnum):
    """Which resources are validated: a sample of one in 256, all, or none."""

    SAMPLE = "sample"
    ALL = "all"
    OFF = "off"

    def takes(self, resource_type: str, resource_id: str) -> bool:
        """Whether a resource is validated: of a sample always the same ones, whatever run and place they come in."""
        if self is _SAMPLE:
            return zlib.crc32((resource_type + resource_id).encode()) % _ONE_IN == 0
        return self is Validation.ALL


# Looked up in the class it takes as long as the rest of `takes`.
_SAMPLE = Validation.SAMPLE


def findings(resource_type: str, resource: bytes) -> list[tuple[str, str]]:
    """What is not valid in a resource: (JSON path, rule), each once. No value of the resource is in it.

    A rule is the kind of a pydantic error, such as `missing`, `extra_forbidden` or `value_error`. A name that FHIR does
    not have is the sender's word, and not repeated: the path ends with the element that has it.
    """
    from pydantic import ValidationError

    try:
        _model(resource_type).model_validate_json(resource)
    except ValidationError as error:
        told = error.errors(include_url=False, include_context=False, include_input=False)
        return sorted({(_path(each["loc"], each["type"]), each["type"].rpartition(".")[2]) for each in told})
    return []


@cache
def _model(resource_type: str) -> Any:
    # Imported by whoever validates, since it takes longer than a small run.
    from fhir.resources.R4B import get_fhir_model_class

    return get_fhir_model_class(resource_type)


def _path(location: tuple[int | str, ...], kind: str) -> str:
    # The models call an element as a whole its root.
    names = [name for name in location if isinstance(name, str) and name != "root"]
    return ".".join(["$", *(names[:-1] if kind == "extra_forbidden" else names)])
