"""Every error that a user can meet, and the exit code that the command line gives for it.

An error names the thing (source, resource, file and line, feature) and says what to do next. It never carries
patient data: no value, no name, no resource body. Exit codes are never reused; a retired one stays here as a comment.

Codes that no class has are said in `COMMON_CODES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FhirFeaturesError(Exception):
    """The base of all errors of this package: one clear line, and the exit code that the command line gives."""

    exit_code = 2


# https://man.freebsd.org/cgi/man.cgi?sysexits: EX_SOFTWARE
FAULT = 70
# What a shell gives for what SIGINT has ended.
INTERRUPTED = 130

COMMON_CODES = {
    0: "done",
    1: "findings: quarantine above `--max-quarantined`, a check that failed",
    2: "wrong use, configuration or definition",
    3: "refused by a gate: more would have been done than is plausible",
    # 4 was "cannot be evaluated", and no command ended with it.
    FAULT: "a fault of fhir-features itself, such as no error here describes",
    INTERRUPTED: "interrupted (Ctrl-C): run the same command again, and it goes on",
}


class ConfigError(FhirFeaturesError):
    """The configuration file is missing, cannot be read, or says something that is not known."""


class UsageError(FhirFeaturesError):
    """A call or a command was used wrongly: an unknown source, view or column, an instant that cannot be read."""


class DefinitionError(FhirFeaturesError):
    """A feature definition is wrong: an unknown code, a unit of another dimension, a window without a unit."""


class SpineError(FhirFeaturesError):
    """An entity frame cannot be used as a spine: no time column, nulls, naive times."""


class GateRefused(FhirFeaturesError):
    """What was asked for would do more than is plausible, and was not done."""

    exit_code = 3


class SourceUnreachable(FhirFeaturesError):
    """The source did not answer, or kept answering with a server error (5xx, 429)."""

    exit_code = 10


class SourceRefused(FhirFeaturesError):
    """The source answered 401 or 403: the credentials are missing, wrong or too narrow."""

    exit_code = 11


class SourceNotFhir(FhirFeaturesError):
    """The source answered, but not with FHIR: a login page, 404, another media type, a body that is not a Bundle."""

    exit_code = 12


class SourceIncomplete(FhirFeaturesError):
    """The source's pages or files did not add up to a complete set; no watermark of the type moved."""

    exit_code = 13


class LandingError(FhirFeaturesError):
    """A landed file is missing or differs from what its run recorded."""

    exit_code = 14


class LakeLocked(FhirFeaturesError):
    """Another process is writing to this warehouse."""

    exit_code = 20


class LakeError(FhirFeaturesError):
    """The warehouse is missing, was made by another version, or does not add up."""

    exit_code = 21


class OntologyError(FhirFeaturesError):
    """An ontology artifact is missing, incomplete, or differs from what the lock or its manifest says."""

    exit_code = 30


class FeatureTableError(FhirFeaturesError):
    """A feature table cannot be built or read as asked: no watermark yet, or a cadence that is refused."""

    exit_code = 40


class ReproductionError(FhirFeaturesError):
    """A training set cannot be made again from its receipt: an input, which is named, is gone or was replaced."""

    exit_code = 41


class OnlineStoreError(FhirFeaturesError):
    """The online store of the Feast repository is down, or did not take or give rows."""

    exit_code = 42


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A closing clause for an error about an unknown word: the nearest known one, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if names else "none is defined"
