"""The configuration file `fhir_features.toml`: which warehouse, which sources, and how their clocks are to be read.

Strict: an unknown key or a wrong value is a `ConfigError` of one line that names the file, the key and the right word.
Relative paths are relative to the file. Secrets never stand in it: `auth` names an environment variable or a file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from fhir_features.errors import ConfigError, UsageError, did_you_mean
from fhir_features.times import duration_us, time_zone

FILE_NAME = "fhir_features.toml"
_PROFILES = Path(__file__).parent / "sources" / "profiles"

ResourceType = Literal[
    "Patient",
    "Encounter",
    "Observation",
    "Condition",
    "MedicationRequest",
    "Medication",
    "DiagnosticReport",
    "Provenance",
]
RESOURCE_TYPES: tuple[ResourceType, ...] = (
    "Patient",
    "Encounter",
    "Observation",
    "Condition",
    "MedicationRequest",
)
KnownAtPolicy = Literal["default", "reported", "server", "received", "latest"]


def _checked_duration(text: str) -> str:
    duration_us(text)
    return text


_BRANCH = re.compile(r"(literal|dict|function-\w+)\[|(bool|datetime)$")

Duration = Annotated[str, AfterValidator(_checked_duration)]
LagOrNone = Annotated[str, AfterValidator(lambda text: text if text == "0" else _checked_duration(text))]
TimeZone = Annotated[str, AfterValidator(time_zone)]


def _one_search(text: str) -> str:
    # Servers have been seen to split at every comma, those inside a filter too.
    if not re.fullmatch(r"[^\s,?&=]+=[^\s,?]+", text):
        raise ValueError(f"'{text}' is no filter: write 'category=laboratory', and each of several as one of the list")
    return text


TypeFilter = Annotated[str, AfterValidator(_one_search)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Warehouse(_Strict):
    """Where all that the store writes lives, and into how many buckets patients are divided (fixed at creation)."""

    path: Path = Path("warehouse")
    buckets: int = Field(default=32, ge=1, le=4096)


def _plain_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address that starts with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be an address alone, without user, password, query or fragment: credentials go to auth")
    return url


Address = Annotated[str, AfterValidator(_plain_address)]


class Auth(_Strict):
    """How to authenticate with a server. Secrets and keys come from an environment variable or from a file.

    - `bearer`: a token; `basic`: a user and a password.
    - `smart`: SMART Backend Services, with the private key (PEM or JWK, RSA or P-384) whose public half is registered
      there under `client_id`; `client-secret`: OAuth 2 client credentials. Both ask the token endpoint that the
      server's SMART configuration names, or `token_url`, for `scopes`, by default those that read the source's types.
    - `client_id` is also sent as Epic-Client-ID, which Epic asks for.
    """

    kind: Literal["none", "bearer", "basic", "smart", "client-secret"] = "none"
    user: str | None = None
    client_id: str | None = None
    secret_env: str | None = None
    secret_file: Path | None = None
    key_env: str | None = None
    key_file: Path | None = None
    kid: str | None = None
    scopes: tuple[str, ...] | None = Field(default=None, min_length=1)
    token_url: Address | None = None

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


class Source(_Strict):
    """One FHIR server (by `search`, or by Bulk Data export: `bulk`) or folder of files (`files`), and how its clocks
    are read (TIME rules 6 to 12).

    - `profile`: what kind of server it is; gives what is not said of the keys from `page_size` to `categories`.
    - `accurate_total`: whether it is asked to count what a search matches, so that a search that ends early is noticed.
    - `last_updated`, `history`: whether it can be asked for what has changed, by search and by the history of a type.
    - `per_patient`: types that it only gives patient by patient; `categories`: those that it wants each search of a
      type to name.
    - `next_hosts`: other hosts (`host` or `host:port`) that its links name, as servers behind a proxy do; such a link
      is asked for at the host of `base_url`.
    - `level`: what of a server is exported: `system`, `patient` (all patients) or `group/ID`; `type_filters`: searches
      by resource type, of which an exported resource of that type fulfils at least one; `export_deadline`: how long
      the server may take.
    - `known_at`: the policy; `default` is the rules for witnessed versions and snapshots.
    - `trust_last_updated`: whether meta.lastUpdated is the server's own clock; `migrated_before`: an earlier
      lastUpdated is a migration's and says nothing.
    - `tolerance`: how much later than its author time a snapshot's lastUpdated may be before its content is suspected.

    Each of these four is one setting for all, or a table of them by resource type (`Observation`), or type and category
    (`Observation/laboratory`); what such a table leaves out is as without it.

    - `bedside` with `bedside_lag`: Observation categories that are known at their effective end plus the lag when they
      have no `issued`.
    - `coding_lag`: how long after the end of its encounter a discharge diagnosis is coded.
    - `condition_category`: what a Condition without a category is.
    - `own_systems`: the values of meta.source, without their fragment, that are this source's own; what has another one
      was sent here from elsewhere. Empty: meta.source says nothing.
    - `known_modifiers`: URLs of modifier extensions that change nothing of what is read here; what has another one is
      quarantined. `other_base_urls`: further addresses of this server, as its references name it; a reference to any
      other server is none to a resource of this source.
    - `validity_is_taken`: whether the validityPeriod of an order is the time in which it is taken, not only filled.
    - `midnight_is_date`: whether a time of exactly 00:00:00 means that only the date is known.
    """

    kind: Literal["search", "bulk", "files"]
    site: str = Field(min_length=1)
    timezone: TimeZone
    base_url: Address | None = None
    path: Path | None = None
    resource_types: tuple[ResourceType, ...] = RESOURCE_TYPES
    auth: Auth = Auth()
    profile: str = "generic"
    page_size: int = Field(ge=1, le=10_000)
    accurate_total: bool
    overlap: Duration
    last_updated: bool
    history: bool
    per_patient: tuple[ResourceType, ...] = ()
    categories: dict[ResourceType, tuple[str, ...]] = {}
    next_hosts: tuple[str, ...] = ()
    level: str | None = Field(default=None, pattern=r"^(system|patient|group/[A-Za-z0-9.\-]{1,64})$")
    type_filters: dict[ResourceType, tuple[TypeFilter, ...]] = {}
    export_deadline: Duration = "7d"
    known_at: KnownAtPolicy | dict[str, KnownAtPolicy] = "default"
    trust_last_updated: bool | dict[str, bool] = True
    migrated_before: AwareDatetime | dict[str, AwareDatetime] | None = None
    tolerance: Duration | dict[str, Duration] = "1d"
    bedside: tuple[str, ...] = ("vital-signs",)
    bedside_lag: LagOrNone = "0"
    coding_lag: LagOrNone = "0"
    condition_category: Literal["encounter-diagnosis", "problem-list-item"] = "problem-list-item"
    own_systems: tuple[str, ...] = ()
    known_modifiers: tuple[str, ...] = ()
    other_base_urls: tuple[Address, ...] = ()
    validity_is_taken: bool = False
    midnight_is_date: bool = False

    @model_validator(mode="before")
    @classmethod
    def _takes_from_its_profile_what_it_does_not_say(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        name = said.get("profile", "generic")
        profiles = {path.stem: path for path in _PROFILES.glob("*.toml")}
        if name not in profiles:
            raise ValueError(f"unknown profile '{name}': {did_you_mean(str(name), profiles)}")
        return tomllib.loads(profiles[name].read_text(encoding="utf-8")) | said

    @model_validator(mode="after")
    def _says_where(self) -> Source:
        if self.kind != "files" and (self.base_url is None or self.path is not None):
            raise ValueError(f"a source of kind '{self.kind}' needs base_url, and no path")
        if self.kind == "files" and (self.path is None or self.base_url is not None):
            raise ValueError("a source of kind 'files' needs path, and no base_url")
        return self

    @model_validator(mode="after")
    def _says_what_is_exported(self) -> Source:
        if self.kind != "bulk":
            if self.level is not None or self.type_filters:
                raise ValueError("level and type_filters are for a source of kind 'bulk'")
            return self
        if self.level is None:
            raise ValueError("a source of kind 'bulk' needs level: 'system', 'patient' or 'group/ID'")
        if self.level.startswith("group/") and "Patient" not in self.resource_types:
            raise ValueError("a group is exported with Patient among resource_types: it tells who is new in the group")
        if strange := sorted(set(self.type_filters) - set(self.resource_types)):
            raise ValueError(f"type_filters has {', '.join(strange)}, which resource_types does not have")
        return self

    @field_validator("resource_types")
    @classmethod
    def _are_some_and_distinct(cls, types: tuple[ResourceType, ...]) -> tuple[ResourceType, ...]:
        if not types or len(set(types)) != len(types):
            raise ValueError("must name at least one resource type, and none twice")
        return types

    @field_validator("next_hosts")
    @classmethod
    def _are_hosts_alone(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d+)?", host):
                raise ValueError(f"'{host}' is no host: write 'host' or 'host:port'")
        return hosts

    @field_validator("known_at", "trust_last_updated", "migrated_before", "tolerance")
    @classmethod
    def _are_for_known_types(cls, setting: Any) -> Any:
        for key in setting if isinstance(setting, dict) else ():
            resource_type = key.partition("/")[0]
            if resource_type not in get_args(ResourceType):
                raise ValueError(
                    f"unknown resource type in '{key}': {did_you_mean(resource_type, get_args(ResourceType))}"
                )
        return setting

    def setting(self, name: str, resource_type: str, categories: Sequence[str] = ()) -> Any:
        """`known_at`, `trust_last_updated`, `migrated_before` or `tolerance` for one resource type and its categories:
        that of the first category that has one of its own, else that of the type, else the default."""
        setting = getattr(self, name)
        if not isinstance(setting, dict):
            return setting
        keys = [*(f"{resource_type}/{category}" for category in categories), resource_type]
        return next((setting[key] for key in keys if key in setting), type(self).model_fields[name].default)

    def filters(self, resource_type: str) -> tuple[str, ...]:
        """The searches of which an exported resource of a type fulfils at least one; none if all are wanted."""
        return next((filters for name, filters in self.type_filters.items() if name == resource_type), ())


class Features(_Strict):
    """Where the feature definitions are: a folder with a `features.py`."""

    path: Path = Path("feature_repo")


class Config(_Strict):
    """The whole configuration. `file` is where it was read from; paths in it are absolute."""

    warehouse: Warehouse = Warehouse()
    features: Features = Features()
    sources: dict[str, Source] = {}
    file: Path

    @field_validator("sources")
    @classmethod
    def _have_plain_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            # A source's name is the name of its folder in the landing.
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"'{name}' cannot be the name of a source: use letters, digits, - and _")
        return sources

    def source(self, name: str) -> Source:
        """One source by its name. Raises UsageError for an unknown one."""
        if name not in self.sources:
            raise UsageError(f"there is no source '{name}' in {self.file.name}: {did_you_mean(name, self.sources)}")
        return self.sources[name]


def load_config(path: str | Path) -> Config:
    """Read a configuration file, or the one in a folder. Raises ConfigError of one line."""
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration at {file}: create it, or name another one with --config"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    try:
        config = Config.model_validate({**raw, "file": file.resolve()})
    except ValidationError as error:
        raise ConfigError(f"{file}: {_first_problem(error, raw)}") from None
    return _with_absolute_paths(config)


def _first_problem(error: ValidationError, raw: dict[str, Any]) -> str:
    # Of what a union refuses, the branch that came furthest says most.
    problem = max(error.errors(), key=lambda each: len(each["loc"]))
    # What pydantic names of a union is no key of ours.
    where = [part for part in map(str, problem["loc"]) if not _BRANCH.match(part)]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}': {did_you_mean(where[-1], _known_keys(where[:-1]))}"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"'{key}': {message}" if key else message


def _known_keys(parents: list[str]) -> list[str]:
    if not parents:
        model: type[BaseModel] = Config
    elif parents[0] == "warehouse":
        model = Warehouse
    elif parents[0] == "features":
        model = Features
    else:
        model = Auth if parents[-1] == "auth" else Source
    return [name for name in model.model_fields if name != "file"]


def _with_absolute_paths(config: Config) -> Config:
    folder = config.file.parent
    sources = {
        name: source.model_copy(
            update={
                "path": source.path and folder / source.path,
                "auth": source.auth.model_copy(
                    update={
                        "secret_file": source.auth.secret_file and folder / source.auth.secret_file,
                        "key_file": source.auth.key_file and folder / source.auth.key_file,
                    }
                ),
            }
        )
        for name, source in config.sources.items()
    }
    warehouse = config.warehouse.model_copy(update={"path": folder / config.warehouse.path})
    features = config.features.model_copy(update={"path": folder / config.features.path})
    return config.model_copy(update={"warehouse": warehouse, "features": features, "sources": sources})
