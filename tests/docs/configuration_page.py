"""Every key of `fhir_features.toml`, from the models that read it. Run this file to write docs/reference/configuration.md."""

from __future__ import annotations

import datetime as dt
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fhir_features import config

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
PROFILE = Path(config.__file__).parent / "sources" / "profiles" / "generic.toml"
INTRODUCTION = """# Configuration

Generated from the code: do not edit. `fhir_features.toml` lies in the folder that commands run in, or is named with
`--config` or `$FHIR_FEATURES_CONFIG`. Unknown keys are refused. Relative paths are relative to the file. Durations are
written `90s`, `5min`, `6h`, `7d`. No secret stands in it: `auth` names an environment variable or a file.

[Sources](../sources.md) says what the keys of a source are for.
"""
WORDS = {str: "text", Path: "path", bool: "true, false", int: "number", float: "number", dt.datetime: "instant"}


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of the file with the models that read them, as they are written; `NAME` is the user's own word."""
    yield from _sections(config.Config, "")


def _sections(model: type[BaseModel], name: str) -> Iterator[tuple[str, type[BaseModel]]]:
    if any(_section_of(field) is None for field in model.model_fields.values()) and name:
        yield name, model
    for key, field in model.model_fields.items():
        if (inner := _section_of(field)) is not None:
            part = f"{key}.NAME" if get_origin(field.annotation) is dict else key
            yield from _sections(inner, f"{name}.{part}" if name else part)


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that is a section of its own."""
    for each in (field.annotation, *get_args(field.annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def written() -> str:
    """The page as it is to be."""
    parts = [INTRODUCTION]
    for name, model in sections():
        parts += [
            f"## [{name}]\n",
            f"{' '.join((model.__doc__ or '').split())}\n",
            "| key | kind | default | meaning |",
        ]
        parts.append("| --- | --- | --- | --- |")
        for key, field in model.model_fields.items():
            if _section_of(field) is None:
                assert field.description, f"'{key}' of [{name}] has no Field(description=...)"
                cells = [f"`{key}`", _kind(field.annotation), _default(key, field), field.description]
                parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), [each for each in get_args(annotation) if each is not type(None)]
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (Union, types.UnionType):
        kinds = dict.fromkeys(_kind(each) for each in arguments)
        return " or ".join(kinds)
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table"
    return WORDS.get(annotation, "text") if not arguments else _kind(arguments[0])


def _default(key: str, field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        profile = tomllib.loads(PROFILE.read_text(encoding="utf-8"))
        if key not in profile:
            return "required"
        default = profile[key]
    if default is None or default in ((), {}):
        return ""
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
