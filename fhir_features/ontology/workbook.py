"""What is written in an Excel workbook? The text of its cells, row by row; nothing of formats, formulas or dates.

In: the bytes of an .xlsx file (ECMA-376). Out: its sheets in order, each a list of rows by number and column letter.
"""

from __future__ import annotations

import io
import zipfile
from xml.etree import ElementTree

_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"

Row = tuple[int, dict[str, str]]


def sheets(workbook: bytes) -> list[list[Row]]:
    """The sheets of a workbook. Raises ValueError for what is no whole workbook."""
    try:
        with zipfile.ZipFile(io.BytesIO(workbook)) as parts:
            names = sorted(name for name in parts.namelist() if name.startswith("xl/worksheets/sheet"))
            strings = _shared_strings(parts)
            return [_rows(ElementTree.fromstring(parts.read(name)), strings) for name in names]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError) as error:
        raise ValueError("not a whole workbook") from error


def _shared_strings(parts: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in parts.namelist():
        return []
    return [_text(item) for item in ElementTree.fromstring(parts.read("xl/sharedStrings.xml"))]


def _rows(sheet: ElementTree.Element, strings: list[str]) -> list[Row]:
    return [(int(row.attrib["r"]), _cells(row, strings)) for row in sheet.iter(f"{_SHEET}row")]


def _cells(row: ElementTree.Element, strings: list[str]) -> dict[str, str]:
    cells = {}
    for cell in row.iter(f"{_SHEET}c"):
        value = _text(cell) if cell.get("t") == "inlineStr" else cell.findtext(f"{_SHEET}v")
        if value is not None:
            cells[cell.attrib["r"].rstrip("0123456789")] = strings[int(value)] if cell.get("t") == "s" else value
    return cells


def _text(element: ElementTree.Element) -> str:
    return "".join(text.text or "" for text in element.iter(f"{_SHEET}t"))
