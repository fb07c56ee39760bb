"""The gateway's settings, read once from the environment."""

import ipaddress
import re
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gemma_wire.byte_sizes import ByteSize

MIB = 2**20
_KEY: Final = re.compile(r"[!-~]+")
_ORIGIN: Final = re.compile(r"\*|https?://[^/,\s*]+")
_ALIAS: Final = re.compile(r"[^=\s]+=[^=*\s]+")
_DOMAIN: Final = re.compile(r"\*|[\w.:\[\]-]+")


class GatewaySettings(BaseSettings):
    """Each field is the environment variable ``API_`` + its name, unless its description names another."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="API_", env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 lets the system choose.")
    triton_grpc_url: str = Field(
        "localhost:8001",
        pattern=r"[^,\s]",
        validation_alias=AliasChoices("triton_grpc_url", "TRITON_GRPC_URL"),
        description="TRITON_GRPC_URL: host:port, several separated by commas, or dns:///name:port.",
    )

    keys: SecretStr | None = Field(
        None, description="API keys, separated by commas; empty: anyone who can reach the port can use it."
    )
    keys_file: Path | None = Field(
        None, description="File with further API keys, one per line; # begins a comment."
    )
    allowed_hosts: str = Field(
        "",
        description="Allowed names in the Host header, separated by commas; * for any. Empty: any, except on "
        "loopback without keys, where only localhost and IP addresses are allowed (against DNS rebinding).",
    )
    cors_origins: str = Field(
        "",
        description="CORS: origins of web pages that may use the API (https://app.example.org), separated by "
        "commas; * for any.",
    )

    max_connections: int = Field(
        0,
        ge=0,
        description="Concurrent client connections. A further one replaces the connection that has waited "
        "longest for a request; if all have a request in progress, it gets 503. 0: three quarters of the "
        "limit on open files, at most 10,000.",
    )
    header_seconds: float = Field(
        30, gt=0, description="A request whose head takes longer to arrive is refused with 408."
    )
    keep_alive_seconds: float = Field(75, gt=0, description="An idle connection is closed after this time.")
    sse_ping_seconds: float = Field(
        15,
        ge=0.1,
        description="A stream that has been silent for this long, as during a long prefill, gets a comment "
        "(`: ping`), so that proxies keep the connection open. Shorter than the timeouts of all proxies.",
    )
    write_seconds: float = Field(
        60,
        gt=0,
        description="If a client reads nothing of its response for this long, the connection is closed and "
        "the request cancelled.",
    )

    max_body_bytes: ByteSize = Field(
        64 * MIB, ge=1, description="A longer request body is refused with 413; 64MiB, or a number of bytes."
    )
    body_seconds: float = Field(
        60, gt=0, description="A body that takes longer to arrive is refused with 408."
    )
    request_seconds: float = Field(
        3600, gt=0, description="A request that takes longer, including its response, is ended with 408."
    )
    max_concurrent: int = Field(
        0,
        ge=0,
        description="Concurrent requests per API key (without keys: of all clients); further ones are "
        "refused with 429. 0: no limit.",
    )

    model_aliases: str = Field(
        "",
        description="Other names of models, separated by commas: `claude-*=gemma3n` serves each name that "
        "begins with claude- by the main model. The first that matches applies; a model's own name comes "
        "first.",
    )

    max_images: int = Field(16, ge=0, description="Images per request.")
    max_image_bytes: ByteSize = Field(
        32 * MIB, ge=1, description="Encoded size of one image; 32MiB, or a number of bytes."
    )
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=178_000_000,
        description="Width x height of one image; Pillow's own limit is 178 million.",
    )
    max_audio: int = Field(16, ge=0, description="Audio files per request; the model limits their length.")
    max_audio_bytes: ByteSize = Field(
        32 * MIB, ge=1, description="Encoded size of one audio file; 32MiB, or a number of bytes."
    )
    max_audio_seconds: float = Field(
        3600,
        gt=0,
        validation_alias=AliasChoices("max_audio_seconds", "GEMMA_MAX_AUDIO_SECONDS"),
        description="GEMMA_MAX_AUDIO_SECONDS: length of one audio file, in seconds.",
    )
    max_audio_upload_bytes: ByteSize = Field(
        256 * MIB,
        ge=1,
        description="A longer request to /v1/audio/ is refused with 413; 256MiB, or a number of bytes.",
    )
    audio_upload_seconds: float = Field(
        600, gt=0, description="A request to /v1/audio/ that takes longer to arrive is refused with 408."
    )
    media_domains: str = Field(
        "",
        description="Hosts from which images and audio may be fetched by URL, separated by commas; a name "
        "includes its subdomains, * is any public host. Empty: nothing is fetched.",
    )
    media_seconds: float = Field(10, gt=0, description="Timeout for fetching one file, including redirects.")

    store: Path | None = Field(
        None,
        description="SQLite file in which the responses of /v1/responses are stored, for "
        "previous_response_id and background; one gateway process uses it. Empty: nothing is stored.",
    )
    store_days: float = Field(30, gt=0, description="Stored responses are deleted after this time.")
    store_bytes: ByteSize = Field(
        1024 * MIB, ge=1, description="Size of all stored responses; the oldest are deleted first. 1GiB."
    )

    describe_seconds: float = Field(5, gt=0, description="Timeout of a health check of the model.")
    shutdown_seconds: float = Field(
        3,
        ge=0,
        description="How long requests may continue after SIGTERM. Allow 5 s more before SIGKILL.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Verbosity.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Plain text, or one JSON object per line."
    )
    log_prompts: bool = Field(False, description="Log requests, without images and audio.")
    otel_endpoint: str = Field(
        "",
        validation_alias=AliasChoices(
            "otel_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
        description="OTEL_EXPORTER_OTLP_ENDPOINT: where traces are sent, over HTTP; empty: no traces. "
        "The SDK's other OTEL_ variables apply, too.",
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
                raise ValueError(f"{origin!r} is not an origin; write https://app.example.org, or * alone")
        return text

    @field_validator("model_aliases")
    @classmethod
    def _are_aliases(cls, text: str) -> str:
        for item in _listed(text):
            if not _ALIAS.fullmatch(item):
                raise ValueError(f"{item!r} is not an alias; write alias=model, in which * is any text")
        return text

    @field_validator("media_domains", "allowed_hosts")
    @classmethod
    def _are_domains(cls, text: str) -> str:
        for name in _listed(text):
            if not _DOMAIN.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a host name; a name includes its subdomains, * alone is any"
                )
        return text

    @property
    def triton_targets(self) -> tuple[str, ...]:
        """``triton_grpc_url``, one gRPC target per server."""
        return _listed(self.triton_grpc_url)

    @cached_property
    def api_keys(self) -> tuple[str, ...]:
        """All keys, from ``keys`` and ``keys_file``; empty: no key is needed."""
        given = _listed(self.keys.get_secret_value()) if self.keys else ()
        return given + (_lines(self.keys_file) if self.keys_file else ())

    @property
    def origins(self) -> tuple[str, ...]:
        """``cors_origins`` as a tuple."""
        return _listed(self.cors_origins)

    @property
    def domains(self) -> tuple[str, ...]:
        """``media_domains`` as a tuple, in lower case."""
        return _listed(self.media_domains.lower())

    @property
    def aliases(self) -> tuple[tuple[str, str], ...]:
        """``model_aliases`` as pairs: a pattern, and the name of a model."""
        pairs = (item.partition("=") for item in _listed(self.model_aliases))
        return tuple((pattern, model) for pattern, _, model in pairs)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The allowed host names; empty: any."""
        given = _listed(self.allowed_hosts.lower())
        if not given and self.is_loopback and not self.api_keys:
            return ("localhost",)
        return () if "*" in given else given

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
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
    """The message never contains the invalid key: it is logged."""
    if not keys:
        raise ValueError("it contains no key; leave it empty to need none")
    if not all(_KEY.fullmatch(key) for key in keys):
        raise ValueError("a key consists of visible ASCII characters")


def variable(field: str) -> str:
    """The environment variable that sets a field."""
    alias = GatewaySettings.model_fields[field].validation_alias
    return str(alias.choices[-1]) if isinstance(alias, AliasChoices) else f"API_{field.upper()}"
