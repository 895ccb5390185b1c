"""Resources as a broken or a hostile server would send them: some of their bytes or of their elements changed.

In: a number that the change follows from, so that a case can be had again. Out: the bytes of one line.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

# What stands in the place of some element of a resource. Raw bytes are put there as they are, JSON or not.
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 5e-324, 2**31, -(2**31) - 1, 2**63, 2**64, 10**30,
    b"1e400", b"-1e400", b"1e-400", b"9" * 400, b"-" + b"9" * 400, b"9" * 4500, b"0." + b"1" * 400, b"NaN", b"01", b"-",
    "", " ", "\0", "a\0b", "a\nb", "a\r\nb", "\x7f", "\u2028", "\ufeff", "\U0010ffff", "e\u0301", "\u00e9", "x" * 70_000,
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\0"', b'"\\u12"', b'"\\x"', b'"',
    "'; DROP TABLE lake.patients; --", '" OR 1=1 --', "'||(SELECT 1)||'", "$1", "?", "{x}", "%s", "{{7*7}}",
    "<script>alert(1)</script>", "&lt;b&gt;", "../../../etc/passwd", "..\\..\\x", "/etc/passwd", "file:///etc/passwd",
    "C:\\x", "con", "a/b", "Patient/", "Patient//", "Patient/../x", "/Patient/x", "urn:uuid:", "urn:uuid:x", "#", "#x",
    "Patient/x/_history/1", "http://[::1", "https://south.example/Patient/1", "mailto:x", "=1+1", "@x", "-x",
    "2024-02-30", "2024-13", "0000", "9999-12-31T23:59:59.999999-14:00", "0001-01-01T00:00:00+14:00",
    "2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00.1234567890123Z", "99999-01-01", "2024-01-01T00",
    [], {}, [[]], [{}], {"": ""}, [None], {"coding": [{}]}, {"coding": None}, {"reference": 7}, [1, "a", None, {}],
    {"value": 1e308, "unit": "a"}, {"value": -1e308, "code": "a"}, {"value": None, "code": "\0"}, {"low": {}, "high": {}},
    b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * 500 + b"]" * 500,
    [{"url": "urn:x"}] * 500, {"resourceType": "Bundle", "entry": []}, {"resourceType": "Observation"},
)  # fmt: skip


def mutated(resource: dict[str, Any], seed: int) -> bytes:
    """A resource with one to four changes of its elements or of its bytes."""
    dice = random.Random(seed)
    if dice.random() < 0.6:
        return _elements_changed(resource, dice)
    return _bytes_changed(json.dumps(resource).encode(), dice)


def _elements_changed(resource: dict[str, Any], dice: random.Random) -> bytes:
    root = copy.deepcopy(resource)
    raw: dict[bytes, bytes] = {}
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        holder, key = dice.choice(list(_places(root)))
        change = dice.randrange(8)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = [copy.deepcopy(holder[key]) for _ in range(dice.choice((1, 2, 50)))]
        elif change == 2:
            other, its = dice.choice(list(_places(root)))
            holder[key] = copy.deepcopy(other[its])
        elif change == 3 and isinstance(holder, dict):
            holder[dice.choice(("id", "meta", "x", "", "resourceType", "contained", "modifierExtension"))] = holder.pop(
                key
            )
        else:
            value = copy.deepcopy(dice.choice(HOSTILE))
            if isinstance(value, bytes):
                mark = f"mark {len(raw)}"
                raw[json.dumps(mark).encode()] = value
                value = mark
            holder[key] = value
        if not root:
            break
    line = json.dumps(root, ensure_ascii=dice.random() < 0.5).encode()
    for mark, value in raw.items():
        line = line.replace(mark, value)
    return line.replace(b"\n", b" ")


def _places(element: Any) -> Any:
    """Each place in a JSON value, as what holds it and the key it has there."""
    keys = list(element) if isinstance(element, dict) else range(len(element)) if isinstance(element, list) else ()
    for key in keys:
        yield element, key
        yield from _places(element[key])


def _bytes_changed(line: bytes, dice: random.Random) -> bytes:
    text = bytearray(line)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        at, length = dice.randrange(len(text) + 1), dice.choice((1, 1, 2, 7, 40))
        change = dice.randrange(6)
        if change == 0:
            del text[at : at + length]
        elif change == 1:
            text[at:at] = bytes(dice.randrange(256) for _ in range(length))
        elif change == 2:
            text[at : at + length] = dice.choice(
                (b"\0", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\xff", b"0", b"e9")
            )
        elif change == 3:
            text[at:at] = text[dice.randrange(len(text) + 1) :][:length]
        elif change == 4 and at < len(text):
            text[at] ^= 1 << dice.randrange(8)
        else:
            del text[at:]
    return bytes(text).replace(b"\n", b" ")
