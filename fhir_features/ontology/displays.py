"""Does the name that a source wrote beside a code belong to that code?

A wrong code under a right name is how a wrong drug gets into a record, and nothing else in the data shows it. The check
is deliberately mild: a name is only called another's when it shares no word with any known name of the code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]{3,}")

# Words that say nothing about which concept is meant.
_EMPTY_WORDS = frozenset(
    "and disorder finding for from left not oral other pack procedure right situation specified tablet the type "
    "unspecified with without".split()
)

# Inflection and spelling differ at the end of a word (pregnancy, pregnant; anaemia, anaemic).
_STEM = 5


def same_meaning(written: str | None, known: Iterable[str]) -> bool:
    """False only if a written name shares no word with any of the known names, and both say something."""
    stems = _stems(written or "")
    if not stems:
        return True
    names = [found for found in (_stems(name) for name in known) if found]
    return not names or any(stems & name for name in names)


def _stems(name: str) -> set[str]:
    plain = name.casefold()
    if not plain.isascii():
        letters = unicodedata.normalize("NFKD", plain)
        plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return {word[:_STEM] for word in _WORD.findall(plain) if word not in _EMPTY_WORDS}
