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

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from fhir_features.auth_config import Address, Auth, Strict
from fhir_features.errors import ConfigError, UsageError, did_you_mean
from fhir_features.private import warn_of_others
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


class Warehouse(Strict):
    """Where all that the store writes lives."""

    path: Path = Field(default=Path("warehouse"), description="where all that the store writes lives")
    buckets: int = Field(
        default=32,
        ge=1,
        le=4096,
        description="into how many parts patients are divided; fixed when the warehouse is made",
    )


class Source(Strict):
    """One FHIR server or folder of files, and how its clocks are read (TIME rules 6 to 12).

    `known_at`, `trust_last_updated`, `migrated_before` and `tolerance` are each one setting for all, or a table of them
    by resource type (`Observation`), or type and category (`Observation/laboratory`); what it leaves out is as without.
    """

    kind: Literal["search", "bulk", "files"] = Field(
        description="`search`: a FHIR server, asked type by type; `bulk`: its Bulk Data export; `files`: a folder of "
        "NDJSON (plain, `.gz`, `.zst`), Bundles or downloaded exports"
    )
    site: str = Field(
        min_length=1, description="the organisation that the data comes from: a patient is (site, patient_id)"
    )
    timezone: TimeZone = Field(description="IANA zone of dates and times without an offset, such as `Europe/Berlin`")
    base_url: Address | None = Field(
        default=None, description="of kinds `search` and `bulk`: the address of the FHIR API"
    )
    path: Path | None = Field(default=None, description="of kind `files`: the folder")
    resource_types: tuple[ResourceType, ...] = Field(
        default=RESOURCE_TYPES,
        description="which of Patient, Encounter, Observation, Condition, MedicationRequest (the default), Medication, "
        "DiagnosticReport (whose `issued` dates results that have none) and Provenance (which tells what came from "
        "elsewhere)",
    )
    auth: Auth = Auth()
    profile: str = Field(
        default="generic",
        description="what kind of server it is: `generic`, `hapi`, `epic` or `oracle`; the defaults of the next nine "
        "keys",
    )
    page_size: int = Field(ge=1, le=10_000, description="how many resources a page of a search is asked to hold")
    accurate_total: bool = Field(
        description="whether the server is asked to count what a search matches, so that one that ends early is noticed"
    )
    overlap: Duration = Field(description="how far before the last pull the next one asks again")
    last_updated: bool = Field(
        description="whether it can be asked for what has changed; a server that cannot is read whole each time"
    )
    history: bool = Field(
        description="whether it is asked for the history of a type before it is searched for what has changed"
    )
    per_patient: tuple[ResourceType, ...] = Field(
        default=(), description="the types that it only gives patient by patient"
    )
    categories: dict[ResourceType, tuple[str, ...]] = Field(
        default={}, description="by type, the categories that it wants a search each for"
    )
    follow: tuple[Literal["Medication", "Observation"], ...] = Field(
        default=(),
        description="types of which whatever a pull refers to and did not bring is read by its id: the Medications of "
        "orders, the Observations of reports and panels",
    )
    connections: int = Field(ge=1, le=16, description="how many requests or downloads run at a time")
    next_hosts: tuple[str, ...] = Field(
        default=(),
        description="other hosts (`host` or `host:port`) that its links and exports name, as servers behind a proxy "
        "do; they are asked for at `base_url`",
    )
    level: str | None = Field(
        default=None,
        pattern=r"^(system|patient|group/[A-Za-z0-9.\-]{1,64})$",
        description="of kind `bulk`, what is exported: `system`, `patient` (all patients) or `group/ID`",
    )
    type_filters: dict[ResourceType, tuple[TypeFilter, ...]] = Field(
        default={},
        description="of kind `bulk`: searches by resource type, of which a resource of that type fulfils at least one: "
        '`{ Observation = ["category=laboratory"] }`',
    )
    export_deadline: Duration = Field(default="7d", description="of kind `bulk`: how long the server may take")
    known_at: KnownAtPolicy | dict[str, KnownAtPolicy] = Field(
        default="default",
        description="how the time of knowing is found: `default`, `reported` (author time), `server` (lastUpdated), "
        "`received`, `latest`. This and the next three can be a table by resource type, or type and category: "
        '`{ "Observation/laboratory" = "server" }`',
    )
    trust_last_updated: bool | dict[str, bool] = Field(
        default=True, description="whether meta.lastUpdated is the server's own clock"
    )
    migrated_before: AwareDatetime | dict[str, AwareDatetime] | None = Field(
        default=None, description="an earlier lastUpdated is a migration's and says nothing"
    )
    tolerance: Duration | dict[str, Duration] = Field(
        default="1d",
        description="how much later than its author time a first-seen version's lastUpdated may be before its content "
        "is suspected",
    )
    bedside: tuple[str, ...] = Field(
        default=("vital-signs",),
        description="Observation categories that are known when taken, where they have no `issued`",
    )
    bedside_lag: LagOrNone = Field(default="0", description="how long after that")
    coding_lag: LagOrNone = Field(
        default="0", description="how long after the end of its encounter a discharge diagnosis is coded"
    )
    condition_category: Literal["encounter-diagnosis", "problem-list-item"] = Field(
        default="problem-list-item", description="what a Condition without a category is"
    )
    own_systems: tuple[str, ...] = Field(
        default=(),
        description="the values of `meta.source`, without what follows `#`, that are the source's own; what has "
        "another was sent from elsewhere. Empty: meta.source says nothing",
    )
    known_modifiers: tuple[str, ...] = Field(
        default=(),
        description="the URLs of modifier extensions that change nothing of what is read; a resource with another one "
        "is quarantined",
    )
    other_base_urls: tuple[Address, ...] = Field(
        default=(),
        description="further base URLs of this server, as its absolute references and its links name it: links are "
        "asked for at `base_url`; a subject on any other server is quarantined, other references to it are left out",
    )
    validity_is_taken: bool = Field(
        default=False,
        description="whether the `validityPeriod` of an order is the time in which it is taken, where its dosage has "
        "no `boundsPeriod`; else only that in which it may be filled",
    )
    one_result_by: tuple[str, ...] = Field(
        default=(),
        description="systems of `identifier`: Observations that share an identifier of one are versions of one result, "
        "whatever their ids, as where a correction gets an id of its own",
    )
    midnight_is_date: bool = Field(default=False, description="whether 00:00:00 means that only the date is known")

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

    @property
    def all_types(self) -> tuple[str, ...]:
        """The types that are searched, exported or followed."""
        return tuple(dict.fromkeys((*self.resource_types, *self.follow)))

    def filters(self, resource_type: str) -> tuple[str, ...]:
        """The searches of which an exported resource of a type fulfils at least one; none if all are wanted."""
        return next((filters for name, filters in self.type_filters.items() if name == resource_type), ())


class Features(Strict):
    """Where the feature definitions are."""

    path: Path = Field(
        default=Path("feature_repo"), description="the folder of `features.py`, which is also the Feast repository"
    )


class Config(Strict):
    """The whole configuration. `file` is where it was read from; paths in it are absolute."""

    warehouse: Warehouse = Warehouse()
    features: Features = Features()
    sources: dict[str, Source] = Field(default={})
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
    """Read a configuration file, or the one in a folder. Raises ConfigError of one line.

    Warns of a warehouse that everybody on this machine may enter.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration at {file}: make one with `fhir-features init`, or name another with --config"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is no TOML: {error}: correct it there; text stands in quotes") from None
    except (UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    try:
        config = Config.model_validate({**raw, "file": file.resolve()})
    except ValidationError as error:
        raise ConfigError(f"{file}: {_first_problem(error, raw)}") from None
    config = _with_absolute_paths(config)
    warn_of_others(config.warehouse.path)
    return config


def _first_problem(error: ValidationError, raw: dict[str, Any]) -> str:
    # Of what a union refuses, the branch that came furthest says most; where a key is missing, one that is mistyped.
    problem = max(error.errors(), key=lambda each: (len(each["loc"]), each["type"] == "extra_forbidden"))
    # What pydantic names of a union is no key of ours.
    where = [part for part in map(str, problem["loc"]) if not _BRANCH.match(part)]
    key = ".".join(where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}': {did_you_mean(where[-1], _known_keys(where[:-1]))}"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        words = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return f"'{key}': '{problem['input']}' is not known: {did_you_mean(problem['input'], words)}"
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
