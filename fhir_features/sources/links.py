"""Where does a link lead that a server gives? In: the link as it came, and the page that it stands on. Out: the address
at which it is asked for. Behind a proxy a server may think that it is spoken to by another scheme, host, port or path
than it is; what is its own is asked for at the base URL, so that credentials go nowhere else."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from fhir_features.config import Source
from fhir_features.errors import SourceNotFhir

_PORT_OF_A_SCHEME = re.compile(r":(80|443)$")


def next_page(name: str, source: Source, resource_type: str, link: str, page_url: str) -> str:
    """The address of the next page of a search: servers give it whole, from the root of the host, or from the base URL.

    Raises SourceNotFhir for what is no address, or is elsewhere.
    """
    assert source.base_url is not None
    if re.match(rf"/?{resource_type}([/?]|$)", link):
        return f"{source.base_url.rstrip('/')}/{link.lstrip('/')}"
    try:
        url = urljoin(page_url, link)
        host = urlsplit(url).netloc
    except ValueError:
        url = host = ""
    if not host:
        raise SourceNotFhir(
            f"source '{name}': a page of {resource_type} links on to what is no address: tell those who run the server"
        )
    if own := at_base(source, url):
        return own
    host = host.rpartition("@")[2]
    raise SourceNotFhir(
        f"source '{name}': a page of {resource_type} links on to another host, {host}: if that is the same server, as "
        f'it is called behind a proxy, add "{host}" to next_hosts, or, where its paths differ too, the base URL that '
        "it has there to other_base_urls"
    )


def at_base(source: Source, url: str) -> str | None:
    """The address, at the base URL, of what is the source's own under whichever name; null for what is elsewhere."""
    assert source.base_url is not None
    base = source.base_url.rstrip("/")
    # The longest first: one of them may begin like another.
    for known in (base, *sorted((each.rstrip("/") for each in source.other_base_urls), key=len, reverse=True)):
        if re.match(rf"{re.escape(known)}([/?]|$)", url):
            return base + url[len(known) :]
    (scheme, host), (own_scheme, own_host) = urlsplit(url)[:2], urlsplit(base)[:2]
    if host in source.next_hosts or _host(host) == _host(own_host):
        return f"{own_scheme}://{own_host}{url[len(f'{scheme}://{host}') :]}"
    return None


def _host(netloc: str) -> str:
    """A host in lower case, and its port unless that is what a scheme implies, which a proxy may change."""
    return _PORT_OF_A_SCHEME.sub("", netloc.lower())
