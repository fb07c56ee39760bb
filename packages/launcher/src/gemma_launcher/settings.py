"""The launcher's settings, read once from the environment and the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gemma_launcher.errors import CommandError

Port = Annotated[int, Field(ge=0, le=65535)]

SECRETS: Final = ("HF_TOKEN", "API_KEYS", "API_KEYS_FILE", "OPENAI_API_KEY", "OTEL_EXPORTER_OTLP_HEADERS")
"""Environment variables with secrets. Each child process gets only those that it needs."""


PREFIXES: Final = ("API_", "GEMMA_", "PLAYGROUND_")
"""How the names of all settings of the processes that the launcher starts begin, with few exceptions."""


class LauncherSettings(BaseSettings):
    """Each field is read from the environment variable of the same name in capitals; command-line flags win.

    Port 0 selects a free port.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    model_name: str = Field(
        "",
        description="Hub id, folder or GGUF file of the checkpoint; OWNER/NAME:Q4_K_M selects a GGUF file of "
        "a hub model; empty: the bundled demo model; gemma3n-tiny: random weights, generated at the first "
        "start",
    )
    gemma_checkpoint: Path | None = Field(
        None, description="Folder or GGUF file of the checkpoint, if MODEL_NAME is only its public name"
    )
    hf_token: SecretStr | None = Field(None, description="Hugging Face token, for gated and private models")
    nvidia_visible_devices: str = Field("all", description="GPUs to use: all, none, or a list such as 0,1")

    api_host: str = Field("127.0.0.1", description="Address the API listens on; 0.0.0.0: all interfaces")
    api_port: Port = Field(
        8080, description="Port of the API; 0 selects a free port, also for the ports below"
    )

    api_max_connections: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Maximum number of client connections of the API; 0: three quarters of the limit on open "
        "files, at most 10,000",
    )
    api_shutdown_seconds: Annotated[float, Field(ge=0)] = Field(
        3,
        description="How long open responses may continue after SIGTERM; send SIGKILL at least 5 s later",
    )

    api_keys: SecretStr | None = Field(
        None,
        description="API keys, separated by commas; if there is only one, the playground gets it. Empty: "
        "anyone who can reach the port may send requests",
    )
    api_keys_file: Path | None = Field(
        None, description="File with further API keys, one per line; # starts a comment"
    )

    gemma_playground: bool = Field(True, description="Start the playground as well")
    playground_host: str = Field(
        "127.0.0.1",
        description="Address the playground listens on; whoever reaches it uses its API key, if it has one",
    )
    playground_port: Port = Field(7860, description="Port of the playground")
    openai_base_url: str = Field(
        "",
        description="Base URL for `playground`, `chat` and `bench`, such as http://host:8080/v1; empty: the "
        "gateway on this machine",
    )
    openai_api_key: SecretStr | None = Field(
        None, description="Their API key; with several API_KEYS, the one that the playground uses"
    )

    triton_grpc_url: str = Field(
        "",
        description="HOST:PORT of a running Triton, several separated by commas, or dns:///NAME:PORT; empty: "
        "start Triton here (a gateway that runs on its own connects to localhost:8001)",
    )
    triton_http_url: str = Field("", description="HTTP address of that Triton; empty: the embedded Triton")
    triton_log_level: Annotated[int, Field(ge=0, le=2)] = Field(
        0, description="0: important messages only; 1, 2: Triton's verbose log"
    )

    gemma_triton_http_port: Port = Field(8000, description="HTTP port of the embedded Triton, on loopback")
    gemma_triton_grpc_port: Port = Field(8001, description="gRPC port of the embedded Triton, on loopback")
    gemma_triton_metrics_port: Port = Field(8002, description="Metrics port of the embedded Triton")
    gemma_triton_listen: Literal["auto", "tcp", "unix"] = Field(
        "auto",
        description="Where the embedded Triton, which checks no API keys, accepts HTTP and gRPC: tcp: ports "
        "on loopback; unix: sockets that only the gateway's user can open; auto: unix if there are API keys "
        "and model control is off, else tcp",
    )
    gemma_triton_start_limit: Annotated[int, Field(ge=10)] = Field(
        1800, description="Seconds the embedded Triton may take to load the model"
    )
    gemma_triton_model_control: bool = Field(
        False,
        description="Allow the embedded Triton to load and unload models on request, for `gemma-triton "
        "reload`; any user of this machine could then load a model",
    )
    gemma_model_repository: Path | None = Field(
        None, description="Triton's model repository; empty: that of the package gemma-model"
    )

    @property
    def token(self) -> str | None:
        """The Hugging Face token."""
        return self.hf_token.get_secret_value() if self.hf_token else None

    @property
    def triton_uses_sockets(self) -> bool:
        """Whether the embedded Triton listens on Unix sockets instead of TCP ports."""
        if self.gemma_triton_listen == "auto":
            return bool(self.api_keys or self.api_keys_file) and not self.gemma_triton_model_control
        return self.gemma_triton_listen == "unix"

    @property
    def embedded(self) -> bool:
        """Whether Triton is started as a child process."""
        return not self.triton_grpc_url


def without_secrets(environment: Mapping[str, str], *needed: str) -> dict[str, str]:
    """The environment without the variables in ``SECRETS``, except those ``needed``."""
    return {name: value for name, value in environment.items() if name not in SECRETS or name in needed}


def load_settings(flags: Mapping[str, Any]) -> LauncherSettings:
    """The settings of this run.

    Args:
        flags: field name → value, for every flag that was given.

    Raises:
        CommandError: a value is not valid; the message names the variable.
    """
    try:
        return LauncherSettings(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper()
        raise CommandError(
            f"{name}={first['input']} is not valid: {first['msg'].removeprefix('Value error, ')}"
        ) from None
