"""What does a shell offer after a tab where a command takes the name of a source, a feature view, a spine, an ontology?

The names are read from the configuration, from the text of `features.py`, which is not run, and from the ontology lock:
to run the definitions would take seconds. So a name that a program puts together is not offered. What cannot be read
offers nothing, without a word.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem

if TYPE_CHECKING:
    from fhir_features.config import Config

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

# As `features.repository.FILE_NAME`, whose import alone would be slow.
_DEFINITIONS = "features.py"


def _offering(find: Callable[[str, str], Iterable[str]]) -> Complete:
    """For `shell_complete=`: of the names that are found, those that begin with what is typed.

    `find` is called with what `--config` says, and what is typed.
    """

    def complete(ctx: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem[str]]:
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")
            found = find(ctx.find_root().params["config"], typed)
            return [CompletionItem(name) for name in found if name.startswith(typed)]
        return []

    return complete


def _config(path: str) -> Config:
    from fhir_features.config import load_config

    return load_config(path)


def _sources(path: str, _: str) -> Iterable[str]:
    return _config(path).sources


def _views(path: str, _: str) -> Iterable[str]:
    return _features(path)


def _views_and_features(path: str, typed: str) -> Iterator[str]:
    """Views, and where it is clear which is meant also its features, as `view:feature`."""
    features = _features(path)
    begun = [view for view in features if view.startswith(typed)]
    yield from begun
    for view in features:
        if begun == [view] or typed.startswith(f"{view}:"):
            yield from (f"{view}:{feature}" for feature in features[view])


def _spines(path: str, _: str) -> Iterator[str]:
    for node in _definitions(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("spine."):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _artifacts(_: str, __: str) -> Iterator[str]:
    from fhir_features.ontology.artifacts import read_lock
    from fhir_features.ontology.systems import ontologies_home

    return (artifact.id for artifact in read_lock(ontologies_home()).artifacts)


def _definitions(path: str) -> ast.Module:
    return ast.parse((_config(path).features.path / _DEFINITIONS).read_bytes())


def _features(path: str) -> dict[str, list[str]]:
    """The features of each `FeatureView(name=..., features=[....named(...)])`, by view."""
    return {
        name: [each for inner in _calls(node, "named") for each in _texts(inner.args[:1])]
        for node in _calls(_definitions(path), "FeatureView")
        for name in _texts(keyword.value for keyword in node.keywords if keyword.arg == "name")
    }


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name in (getattr(node.func, "id", None), getattr(node.func, "attr", None)):
            yield node


def _texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


sources = _offering(_sources)
views = _offering(_views)
views_and_features = _offering(_views_and_features)
artifacts = _offering(_artifacts)


def spines_or_files(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem[str]]:
    """For `shell_complete=`: the spines of the definitions that begin with what is typed, else files."""
    return _offering(_spines)(ctx, param, typed) or [CompletionItem(typed, type="file")]


class Bash(BashComplete):
    """How bash is answered: it takes `diabetes:age`, `icd10cm@FY2026` and `--site=north` for three words each,
    and replaces the last of them."""

    _BREAKS = (":", "@")
    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and that one, whole."""
        args, typed = super().get_completion_args()
        whole: list[str] = []
        for word in (*(arg for arg in args if arg != "="), typed):
            if whole and (word in self._BREAKS or whole[-1].endswith(self._BREAKS)):
                whole[-1] += word
            else:
                whole.append(word)
        *args, last = whole
        self._kept = last if typed in self._BREAKS else last.removesuffix(typed)
        return args, last

    def format_completion(self, item: CompletionItem[str]) -> str:
        """What is to take the place of the last of bash's words."""
        return f"{item.type},{item.value.removeprefix(self._kept)}"
