"""What a folder defines: its `features.py`, run, and every FeatureView, FeatureService and anchored spine found in it.

In goes the folder; out come views and services by their names, and spines by those of their variables. A mistake in the
file is a DefinitionError of one line that names the file and the line.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from fhir_features.errors import DefinitionError, did_you_mean
from fhir_features.features.anchors import Spine
from fhir_features.features.define import patient
from fhir_features.features.series import Series
from fhir_features.features.service import FeatureService
from fhir_features.features.unnamed import Unnamed
from fhir_features.features.view import FeatureView

FILE_NAME = "features.py"
TESTS_NAME = "feature_tests.md"
NamedT = TypeVar("NamedT", FeatureView, FeatureService)


def load_views(folder: Path) -> dict[str, FeatureView]:
    """The feature views that `features.py` in a folder defines, by name, in the order of their definition."""
    return _by_name(folder, FeatureView, "feature views")


def load_services(folder: Path) -> dict[str, FeatureService]:
    """The feature services that `features.py` in a folder defines, by name, in the order of their definition."""
    return _by_name(folder, FeatureService, "feature services")


def _by_name(folder: Path, kind: type[NamedT], what: str) -> dict[str, NamedT]:
    found: dict[str, NamedT] = {}
    for value in vars(_module(folder)).values():
        if isinstance(value, kind) and found.setdefault(value.name, value) != value:
            raise DefinitionError(f"{folder / FILE_NAME}: two {what} are named '{value.name}': rename one")
    return found


def load_spines(folder: Path) -> dict[str, Spine]:
    """The anchored spines that `features.py` in a folder defines, by the names of their variables."""
    return {name: value for name, value in vars(_module(folder)).items() if isinstance(value, Spine)}


def _module(folder: Path) -> ModuleType:
    file = folder / FILE_NAME
    if not file.exists():
        raise DefinitionError(f"there are no feature definitions at {file}: create it, or set features.path")
    module = ModuleType("_feature_definitions")
    module.__file__ = str(file)
    try:
        # An import would take the file from before for one of the same size and second.
        exec(compile(file.read_bytes(), file, "exec", dont_inherit=True), vars(module))
    except Exception as error:
        raise DefinitionError(f"{file}{_line(error, file)}: {_said(error)}") from None
    return module


def _line(error: Exception, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""


def _said(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, DefinitionError):
        return text
    if isinstance(error, AttributeError) and error.name and isinstance(error.obj, Series | Unnamed | type(patient)):
        offered = [name for name in dir(error.obj) if callable(getattr(error.obj, name)) and not name.startswith("_")]
        return f"{error.obj!r} has no '{error.name}': {did_you_mean(error.name, offered)}"
    return f"{type(error).__name__}: {text}"
