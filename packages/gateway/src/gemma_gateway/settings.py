"""What an operator may set, read once from the environment."""

import ipaddress
import re
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 2**20
_KEY: Final = re.compile(r"[!-~]+")
_ORIGIN: Final = re.compile(r"\*|https?://[^/,\s*]+")
_DOMAIN: Final = re.compile(r"\*|[\w.:\[\]-]+")


class Settings(BaseSettings):
    """Each is the environment variable ``API_`` + its name, unless its description says otherwise."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="API_", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 lets the system choose.")
    triton_grpc_url: str = Field(
        "localhost:8001",
        pattern=r"[^,\s]",
        validation_alias=AliasChoices("triton_grpc_url", "TRITON_GRPC_URL"),
        description="TRITON_GRPC_URL: host:port, several with commas between, or dns:///name:port.",
    )

    keys: SecretStr | None = Field(
        None, description="API keys, commas between; none: everybody who reaches the port may ask."
    )
    keys_file: Path | None = Field(None, description="File of further API keys, one a line; # comments.")
    allowed_hosts: str = Field(
        "",
        description="Host names to answer to, commas between, * for any. Empty: on loopback without keys "
        "only localhost and addresses, so that no web page can ask through a name of its own; else any.",
    )
    cors_origins: str = Field(
        "",
        description="Web pages that may ask: origins (https://app.example.org), commas between; * for any.",
    )

    max_connections: int = Field(
        0,
        ge=0,
        description="Connections of clients at a time. One more takes the place of the connection that has "
        "waited longest for its client to send a request; where all are being answered it gets 503. 0: three "
        "quarters of the limit on open files, and at most 10,000.",
    )
    header_seconds: float = Field(
        30, gt=0, description="A request whose head takes longer to come is refused with 408."
    )
    keep_alive_seconds: float = Field(
        75, gt=0, description="A connection without a request is closed after this time."
    )
    write_seconds: float = Field(
        60,
        gt=0,
        description="A client that reads nothing of its answer for so long is cut off; its request ends.",
    )

    max_body_bytes: int = Field(64 * MIB, ge=1, description="A longer request body is refused with 413.")
    body_seconds: float = Field(60, gt=0, description="A body that takes longer to come is refused with 408.")
    request_seconds: float = Field(
        3600, gt=0, description="A request that takes longer, its answer included, is ended with 408."
    )
    max_concurrent: int = Field(
        0,
        ge=0,
        description="Requests of one API key (without keys: of all) at a time; one more is refused with 429. "
        "0: no limit.",
    )

    max_images: int = Field(16, ge=0, description="Images in one request.")
    max_image_bytes: int = Field(32 * MIB, ge=1, description="Encoded size of one image.")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=178_000_000,
        description="Width x height of one image; Pillow itself stops at 178 M.",
    )
    max_audio: int = Field(
        16, ge=0, description="Sounds in one request; how long they may be is the model's."
    )
    max_audio_bytes: int = Field(32 * MIB, ge=1, description="Encoded size of one sound.")
    media_domains: str = Field(
        "",
        description="Hosts from which images and audio are fetched by URL, commas between; a name covers its "
        "subdomains, * is any public host. Empty: nothing is fetched.",
    )
    media_seconds: float = Field(
        10, gt=0, description="How long fetching one file may take, redirects included."
    )

    describe_seconds: float = Field(5, gt=0, description="How long a health check waits for the model.")
    shutdown_seconds: float = Field(
        3,
        ge=0,
        description="How long open answers may go on after SIGTERM; SIGKILL should not come before 5 s more.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Verbosity.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or JSON for machines.")
    log_prompts: bool = Field(False, description="Write what clients ask into the log.")
    otel_endpoint: str = Field(
        "",
        validation_alias=AliasChoices(
            "otel_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
        description="OTEL_EXPORTER_OTLP_ENDPOINT: where traces go, over HTTP; empty: none are made. "
        "The SDK's other OTEL_ variables hold as well.",
    )

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            _check_keys(_listed(keys.get_secret_value()))
        return keys

    @field_validator("keys_file")
    @classmethod
    def _holds_keys(cls, path: Path | None) -> Path | None:
        if path is not None:
            _check_keys(_lines(path))
        return path

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in _listed(text):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; write https://app.example.org, or * alone")
        return text

    @field_validator("media_domains", "allowed_hosts")
    @classmethod
    def _are_domains(cls, text: str) -> str:
        for name in _listed(text):
            if not _DOMAIN.fullmatch(name):
                raise ValueError(f"{name!r} is no host name; a name covers its subdomains, * alone is any")
        return text

    @property
    def triton_targets(self) -> tuple[str, ...]:
        """The servers of ``triton_grpc_url``, one target each."""
        return _listed(self.triton_grpc_url)

    @cached_property
    def api_keys(self) -> tuple[str, ...]:
        """Every key, of ``keys`` and of ``keys_file``; none: no key is asked for."""
        given = _listed(self.keys.get_secret_value()) if self.keys else ()
        return given + (_lines(self.keys_file) if self.keys_file else ())

    @property
    def origins(self) -> tuple[str, ...]:
        """Of ``cors_origins``."""
        return _listed(self.cors_origins)

    @property
    def domains(self) -> tuple[str, ...]:
        """Of ``media_domains``, in lower case."""
        return _listed(self.media_domains.lower())

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names to answer to; none: any."""
        given = _listed(self.allowed_hosts.lower())
        if not given and self.is_loopback and not self.api_keys:
            return ("localhost",)
        return () if "*" in given else given

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach the port."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path} cannot be read") from None
    return tuple(line for line in lines if line and not line.startswith("#"))


def _check_keys(keys: tuple[str, ...]) -> None:
    """Never says what a wrong key looks like: the sentence ends in a log."""
    if not keys:
        raise ValueError("there is no key in it; leave it empty to ask for none")
    if not all(_KEY.fullmatch(key) for key in keys):
        raise ValueError("a key consists of visible ASCII characters")


def variable(field: str) -> str:
    """The environment variable that sets a field."""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[-1]) if isinstance(alias, AliasChoices) else f"API_{field.upper()}"
