"""Where an installation lives and how it is configured: environment and `installation.yml` → one frozen `Settings`.

Nothing else reads `os.environ`. All state of an installation is under `home` (`METRICS_HOME`, default `.metrics/`),
so two installations never meet.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from ruamel.yaml import YAML

from metrics_pipeline.yaml_values import YAMLError, read_yaml

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the file or variable and the mend."""


def system_user() -> str:
    """The name under which the operating system runs this process; no variable of the environment changes it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a number without a name
        return f"uid-{os.getuid()}"


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name!r}; use an IANA name such as Asia/Shanghai") from None
    return name


def _dbt_project(folder: Path) -> Path:
    if not (folder / "dbt_project.yml").is_file():
        raise ValueError(f"{folder} is no dbt project (it has no dbt_project.yml); copy the folder dbt_project there")
    return folder.resolve()


class Installation(BaseModel):
    """What this installation watches: the content of `<home>/installation.yml`, written by `metrics load|demo`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "simulator"
    """Name of the source module: simulator, olist, merch_store, files."""
    path: Path | None = None
    """Folder (or mapping file) the source reads; the simulator keeps its files below `home`."""
    timezone: Annotated[str, AfterValidator(_known_timezone)] = "Asia/Shanghai"
    """The shop's time zone: days and hours of every metric are in it."""
    currency: str = "CNY"
    first_day: date | None = None
    """First shop-local day with partitions; `metrics load|demo` take it from the source's coverage."""
    complete_from: date | None = None
    """First complete shop day of an extract; None = read from its volumes (docs/sources.md)."""
    complete_until: date | None = None
    """Last complete shop day of an extract; None = read from its volumes."""
    forecasts: dict[str, tuple[str, ...]] = {
        "gmv": ("all", "region", "channel"),
        "orders_paid": ("all",),
        "sessions": ("all",),
    }
    """Metric → dimensions of which the night makes a forecast, beside those that rules ask for (docs/forecasts.md)."""
    forecast_model: Literal["ets", "boosted"] = "ets"
    """What makes them: smoothing, or smoothing with the global model on top (ten times the cost; docs/quality.md)."""
    seed: int = 20251111
    scale: float = 1.0


class Settings(BaseModel):
    """One installation, resolved. Build it with `load_settings`, pass it as an argument."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    installation: Installation = Installation()
    rules_dir: Path = PROJECT_ROOT / "alert_rules"
    dbt_project_dir: Annotated[Path, AfterValidator(_dbt_project)] = PROJECT_ROOT / "dbt_project"
    """The dbt project with the metric library; a copy of it may be composed in without touching the checkout."""
    store_url: SecretStr | None = None
    """SQLAlchemy URL of the operational store; default: SQLite below `home`."""
    late_days: int = 3
    """Days before the newest one that the nightly run rebuilds, for late data."""
    sku_days: int = Field(default=92, ge=35)
    """How many of its newest days a backfill builds slices by SKU for; nightly runs add to them (docs/operations.md)."""
    distinct_counts: Literal["exact", "approximate"] = "exact"
    """How visitors and buyers are counted; approximate = HyperLogLog, about 2 % error, a fraction of the work."""
    personal_data: Literal["hash", "drop"] = "hash"
    """What raw tables keep of personal data: a keyed hash, or nothing (docs/access.md)."""
    locale: Literal["zh", "en"] = "zh"
    """Language of messages: zh or en (the other language follows in every message where room allows)."""
    ui_url: str = "http://127.0.0.1:3000"
    """Where links in messages point: the Dagster UI."""
    heartbeat_url: SecretStr | None = None
    """Called every few minutes while alerting works; whoever answers there alarms when the calls stop. None = off."""
    smtp_url: SecretStr | None = None
    """`smtp://user:password@host:port` or `smtps://…`; None = the email channel is off."""
    email_from: str = "metrics@localhost"
    email_to: tuple[str, ...] = ()
    """Who gets alert emails until the routing of `_routes.yml` says otherwise."""
    api_per_minute: int = Field(default=600, ge=1)
    """How many requests a token of the HTTP API may make in a minute, in the long run (docs/api.md)."""
    api_burst: int = Field(default=60, ge=1)
    """How many of them at once."""
    llm_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Base of an OpenAI-compatible API (`http://host/v1`) that words advice in messages; None = off (docs/advice.md)."""
    llm_model: str = ""
    """Its model."""
    llm_key: SecretStr | None = None
    """Its key."""
    llm_timeout: float = Field(default=8.0, gt=0, le=60)
    """Seconds that one message waits for it at most."""
    user: str = Field(default_factory=system_user, pattern=r"^\S+$")
    """Who acts: an id of `_people.yml`; by default the user of the operating system."""

    @property
    def warehouse_dir(self) -> Path:
        return self.home / "warehouse"

    @property
    def build_path(self) -> Path:
        """The private build file. Only the one writer opens it (docs/architecture.md, Storage)."""
        return self.warehouse_dir / "build.duckdb"

    @property
    def published_dir(self) -> Path:
        return self.warehouse_dir / "published"

    @property
    def evaluations_dir(self) -> Path:
        return self.warehouse_dir / "evaluations"

    @property
    def forecasts_dir(self) -> Path:
        return self.warehouse_dir / "forecasts"

    @property
    def source_dir(self) -> Path:
        """Where the simulator writes its files."""
        return self.home / "sources" / "simulator"

    @property
    def dbt_target_dir(self) -> Path:
        return self.home / "dbt" / "target"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def messages_dir(self) -> Path:
        """Where the file channel leaves its messages."""
        return self.home / "messages"

    @property
    def channels_file(self) -> Path:
        """The channels of this installation (docs/channels.md)."""
        return self.home / "channels.yml"

    @property
    def audit_head_file(self) -> Path:
        """How far the audit log reached and its last hash, kept apart from the log (docs/access.md)."""
        return self.home / "audit.head"

    @property
    def database_url(self) -> str:
        if self.store_url is not None:
            return self.store_url.get_secret_value()
        return f"sqlite:///{self.home / 'store.db'}"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.installation.timezone)


_ENV = {
    "METRICS_RULES_DIR": "rules_dir",
    "METRICS_DBT_PROJECT": "dbt_project_dir",
    "METRICS_STORE_URL": "store_url",
    "METRICS_LATE_DAYS": "late_days",
    "METRICS_SKU_DAYS": "sku_days",
    "METRICS_DISTINCT": "distinct_counts",
    "METRICS_PERSONAL_DATA": "personal_data",
    "METRICS_LOCALE": "locale",
    "METRICS_UI_URL": "ui_url",
    "METRICS_HEARTBEAT_URL": "heartbeat_url",
    "METRICS_SMTP_URL": "smtp_url",
    "METRICS_EMAIL_FROM": "email_from",
    "METRICS_EMAIL_TO": "email_to",
    "METRICS_API_PER_MINUTE": "api_per_minute",
    "METRICS_API_BURST": "api_burst",
    "METRICS_LLM_URL": "llm_url",
    "METRICS_LLM_MODEL": "llm_model",
    "METRICS_LLM_KEY": "llm_key",
    "METRICS_LLM_TIMEOUT": "llm_timeout",
    "METRICS_USER": "user",
}


def home_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the installation (`METRICS_HOME`), absolute; it may not be there yet."""
    env = os.environ if environ is None else environ
    return Path(env.get("METRICS_HOME") or ".metrics").expanduser().resolve()


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and `<home>/installation.yml`.

    Raises `SettingsError` naming the variable or file when a value cannot be used.
    """
    env = os.environ if environ is None else environ
    home = home_folder(env)
    values: dict[str, object] = {"home": home, "installation": read_installation(home)}
    for variable, field in _ENV.items():
        if text := env.get(variable, "").strip():
            values[field] = (
                tuple(part.strip() for part in text.split(",") if part.strip()) if field == "email_to" else text
            )
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        variables = {field: variable for variable, field in _ENV.items()}
        raise SettingsError(
            "; ".join(f"{variables.get(str(e['loc'][0]), e['loc'][0])}: {e['msg']}" for e in error.errors())
        ) from None


def read_secret(*, env: str | None = None, file: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The secret in an environment variable, or in a file without its last line end.

    Raises `SettingsError` naming the variable or the file when it is empty or not there.
    """
    if file is not None:
        try:
            value = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{file}: this file of a secret cannot be read; write the secret into it") from None
        if not value:
            raise SettingsError(f"{file}: this file of a secret is empty; write the secret into it")
        return value
    value = ((os.environ if environ is None else environ).get(env or "") or "").strip()
    if not value:
        raise SettingsError(f"the environment variable {env} is not set; set it where the pipeline is started")
    return value


def read_installation(home: Path) -> Installation:
    """The installation's own file, or the defaults when there is none yet."""
    path = home / "installation.yml"
    if not path.exists():
        return Installation()
    try:
        return Installation.model_validate(read_yaml(path.read_text("utf-8")) or {})
    except (YAMLError, ValidationError) as error:
        raise SettingsError(f"{path}: {error}") from None


def write_installation(home: Path, installation: Installation) -> None:
    """Replace `<home>/installation.yml` atomically."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "installation.yml"
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        YAML().dump(installation.model_dump(mode="json"), stream)
    part.replace(path)
