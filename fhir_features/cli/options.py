"""Options that several commands have."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TypeVar

import click

from fhir_features.errors import UsageError
from fhir_features.times import instant

Command = TypeVar("Command", bound=Callable[..., object])


def serving_option(otherwise: str) -> Callable[[Command], Command]:
    """`--serving`: which answers the model has at an instant, and whose where nothing is said."""
    return click.option(
        "--serving",
        metavar="TEXT",
        help="Which answers a model has then: 'exact', those of a schedule ('daily@02:00 Europe/Berlin') or of a while "
        f"ago ('lag 6h'). Otherwise {otherwise}.",
    )


def instant_option(name: str, text: str | None) -> dt.datetime | None:
    """The instant that an option gives. Raises UsageError that names it."""
    try:
        return instant(text) if text else None
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
