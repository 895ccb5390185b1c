"""What mkdocs is told about these pages: which are not in the navigation, and which links lead out of this folder."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Put pages that the navigation does not name under "More", so that a new page is never lost."""
    named = set(_named(config.nav))
    more = sorted(page.src_uri for page in files.documentation_pages() if page.src_uri not in named)
    if more:
        config.nav = [*config.nav, {"More": more}]
    return files


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for each in (nav.values() if isinstance(nav, dict) else nav) for page in _named(each)]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name files of the checkout, to which this site has no links, by their paths."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        return link[0] if target.startswith("docs/") else f"{link[1]} (`{target}`)"

    return LINK.sub(named, markdown)
