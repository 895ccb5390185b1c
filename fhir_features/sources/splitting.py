"""Where do the parts of a JSON object or array begin and end? In: its text, which may be no JSON in places: one
resource with a raw tab in a string, or NaN, makes a whole Bundle unreadable. Out: its parts as they stand there, told
apart by brackets, strings and commas alone, so that what is wrong with one of them is that one's alone."""

from __future__ import annotations

import re

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)
_NAME = re.compile(rb'\s*"([^"\\]*)"\s*:\s*')


def parts(text: bytes) -> tuple[list[bytes], bool]:
    """The parts that an object or array has between its commas, and whether it ends: of one that is cut off the last
    part is left out."""
    found: list[bytes] = []
    depth = begin = 0
    for token in _TOKEN.finditer(text):
        what = token[0]
        if what in b"{[":
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif what in b"}]":
            depth -= 1
            if depth == 0:
                last = text[begin : token.start()].strip()
                return [*found, last] if last or found else [], not text[token.end() :].strip()
        elif what == b"," and depth == 1:
            found.append(text[begin : token.start()].strip())
            begin = token.end()
    return found, False


def members(text: bytes) -> dict[str, bytes]:
    """The members of an object by their names, each value as it stands there; of several of one name the last."""
    named = ((_NAME.match(part), part) for part in parts(text)[0])
    return {name[1].decode(errors="replace"): part[name.end() :] for name, part in named if name}


def entries(bundle: bytes) -> tuple[list[bytes], bool]:
    """The entries of a Bundle, and whether it ends; of one that is cut off those that came whole."""
    within = members(bundle)
    if "entry" in within:
        return parts(within["entry"])[0], parts(bundle)[1]
    # Cut off within its entries, so that they are no member of it.
    begin = re.search(rb'"entry"\s*:\s*(?=\[)', bundle)
    return (parts(bundle[begin.end() :])[0] if begin else []), parts(bundle)[1]
