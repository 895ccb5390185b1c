"""Which small changes of a module are there that its tests must notice? In: a module's source. Out: its mutants, each
the source with one comparison, operation, number, condition or end of a function made another.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
}
# Functions whose names differ by which of two they are.
_TWINS = {"minimum": "maximum", "min": "max", "any": "all", "left": "right", "ascending": "descending"}
_TWINS |= {twin: name for name, twin in _TWINS.items()}


@dataclass(frozen=True)
class Mutant:
    """A changed source, and where and how it differs."""

    module: str
    line: int
    change: str
    source: str


def mutants(module: str, source: str) -> list[Mutant]:
    """All mutants of a source, in the order of its lines."""
    tree = ast.parse(source)
    found = []
    for number, (line, _) in enumerate(_changes(tree)):
        changed = copy.deepcopy(tree)
        before = ast.unparse(changed)
        list(_changes(changed))[number][1]()
        after = ast.unparse(ast.fix_missing_locations(changed))
        found.append(Mutant(module, line, _difference(before, after), after))
    return found


def _difference(before: str, after: str) -> str:
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(f"{one.strip()}  ->  {other.strip()}" for one, other in lines if one != other)


def _changes(tree: ast.Module) -> Iterator[tuple[int, Callable[[], None]]]:
    """The line and the doing of each change; those of annotations, defaults of fields and messages are left out."""
    for node in _code(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Compare):
            yield line, lambda node=node: node.ops.__setitem__(0, _SWAPS[type(node.ops[0])]())
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.AugAssign) and type(node.op) in _SWAPS:
            yield line, lambda node=node: setattr(node, "op", _SWAPS[type(node.op)]())
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            yield line, lambda node=node: setattr(node, "operand", ast.UnaryOp(node.op, node.operand))
        elif isinstance(node, ast.Constant) and type(node.value) in (int, bool, float):
            yield line, lambda node=node: setattr(node, "value", _other(node.value))
        elif isinstance(node, ast.Constant) and node.value in _TWINS:
            yield line, lambda node=node: setattr(node, "value", _TWINS[node.value])
        elif isinstance(node, ast.Attribute) and node.attr in _TWINS:
            yield line, lambda node=node: setattr(node, "attr", _TWINS[node.attr])
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield line, lambda node=node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Return) and node.value is not None:
            yield line, lambda node=node: setattr(node, "value", ast.Constant(None))


def _other(value: float) -> float:
    return not value if isinstance(value, bool) else value + 1


def _code(node: ast.AST) -> Iterator[ast.AST]:
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise | ast.JoinedStr):
            continue
        for each in child if isinstance(child, list) else [child]:
            if isinstance(each, ast.AST):
                yield each
                yield from _code(each)
