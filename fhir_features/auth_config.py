"""The section `auth` of a source: how to authenticate with its server, and what each way needs to be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """A section of the configuration: frozen, and an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _plain_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address that starts with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be an address alone, without user, password, query or fragment: credentials go to auth")
    return url


Address = Annotated[str, AfterValidator(_plain_address)]


class Auth(Strict):
    """How to authenticate with a server. Secrets and keys come from an environment variable or from a file."""

    kind: Literal["none", "bearer", "basic", "smart", "client-secret"] = Field(
        default="none",
        description="`bearer`: a token; `basic`: a user and a password; `smart`: SMART Backend Services, with a "
        "private key whose public half is registered at the server; `client-secret`: OAuth 2 client credentials",
    )
    user: str | None = Field(default=None, description="of kind `basic`")
    client_id: str | None = Field(
        default=None, description="of kinds `smart` and `client-secret`; also sent as Epic-Client-ID"
    )
    secret_env: str | None = Field(
        default=None, description="the environment variable with the token, password or client secret"
    )
    secret_file: Path | None = Field(default=None, description="or the file with it")
    key_env: str | None = Field(
        default=None,
        description="of kind `smart`: the environment variable with the private key, PEM or JWK, RSA or P-384",
    )
    key_file: Path | None = Field(default=None, description="or the file with it")
    kid: str | None = Field(default=None, description="the id of the key; else that of a JWK")
    scopes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="what to ask for, such as `system/*.read`; else what reads the source's types",
    )
    token_url: Address | None = Field(
        default=None, description="the token endpoint; else the one that the server's SMART configuration names"
    )

    @model_validator(mode="after")
    def _says_what_its_kind_needs(self) -> Auth:
        said = {name for name in type(self).model_fields if name != "kind" and getattr(self, name) is not None}
        if self.kind == "none":
            if said:
                raise ValueError("auth needs a kind, such as 'bearer', with what it says")
            return self
        secret, needed, possible = _AUTH[self.kind]
        if len(said & {f"{secret}_env", f"{secret}_file"}) != 1:
            raise ValueError(f"auth kind '{self.kind}' needs {secret}_env or {secret}_file, one of them")
        if missing := [name for name in needed if name not in said]:
            raise ValueError(f"auth kind '{self.kind}' needs {' and '.join(missing)}")
        if strange := sorted(said - {f"{secret}_env", f"{secret}_file", *needed, *possible}):
            raise ValueError(f"auth kind '{self.kind}' takes no {' and no '.join(strange)}")
        return self


# What each kind of auth takes: the secret's name, what must be said besides, and what may be.
_AUTH: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "bearer": ("secret", (), ("client_id",)),
    "basic": ("secret", ("user",), ("client_id",)),
    "smart": ("key", ("client_id",), ("kid", "scopes", "token_url")),
    "client-secret": ("secret", ("client_id",), ("scopes", "token_url")),
}
