"""The launcher's settings, read once from the environment and the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gemma_launcher.errors import CannotStart

Port = Annotated[int, Field(ge=0, le=65535)]

SECRETS: Final = ("HF_TOKEN", "API_KEYS", "API_KEYS_FILE", "OPENAI_API_KEY", "OTEL_EXPORTER_OTLP_HEADERS")
"""Variables with secrets. Each process gets only those that it uses."""


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals; a command line flag wins.

    A port of 0 means any free one.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore")

    model_name: str = Field(
        "",
        description="Hub id or folder of the checkpoint; empty: the bundled demo; gemma3n-tiny: random "
        "weights, made on the spot",
    )
    gemma_checkpoint: Path | None = Field(
        None, description="Folder of the checkpoint, when MODEL_NAME is only its name"
    )
    hf_token: SecretStr | None = Field(None, description="Hub token, for gated and private models")
    nvidia_visible_devices: str = Field("all", description="GPUs to use: all, none, or a list such as 0,1")

    api_host: str = Field("127.0.0.1", description="Address the API listens on; 0.0.0.0: every interface")
    api_port: Port = Field(8080, description="Port of the API; 0, here as below: any free one")

    api_max_connections: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Connections of clients of the API at a time; 0: three quarters of the limit on open "
        "files, and at most 10,000",
    )
    api_shutdown_seconds: Annotated[float, Field(ge=0)] = Field(
        3,
        description="How long open answers may go on after SIGTERM; SIGKILL should not come before 5 s more",
    )

    api_keys: SecretStr | None = Field(
        None,
        description="The API's keys, commas between; the playground gets the only one. None: everybody who "
        "reaches the port may ask",
    )
    api_keys_file: Path | None = Field(
        None, description="File of further keys of the API, one a line; # comments"
    )

    gemma_playground: bool = Field(True, description="Start the playground too")
    playground_host: str = Field(
        "127.0.0.1",
        description="Address the playground listens on; whoever reaches it asks with its key, if it has one",
    )
    playground_port: Port = Field(7860, description="Port of the playground")
    openai_base_url: str = Field(
        "", description="Server that `playground`, `chat` and `bench` ask; empty: the gateway of this machine"
    )
    openai_api_key: SecretStr | None = Field(
        None, description="The key they ask with; of several API_KEYS the one that the playground uses"
    )

    triton_grpc_url: str = Field(
        "",
        description="HOST:PORT of a Triton that runs, several with commas between, or dns:///NAME:PORT; "
        "empty: start one here, and the gateway alone looks at localhost:8001",
    )
    triton_http_url: str = Field("", description="HTTP address of that Triton")
    triton_log_level: Annotated[int, Field(ge=0, le=2)] = Field(
        0, description="0: what matters; 1, 2: everything Triton can tell"
    )

    gemma_triton_http_port: Port = Field(8000, description="HTTP port of the embedded Triton, on loopback")
    gemma_triton_grpc_port: Port = Field(8001, description="gRPC port of the embedded Triton, on loopback")
    gemma_triton_metrics_port: Port = Field(8002, description="Metrics port of the embedded Triton")
    gemma_triton_listen: Literal["auto", "tcp", "unix"] = Field(
        "auto",
        description="Where the embedded Triton answers HTTP and gRPC, which ask for no key: tcp: ports on "
        "loopback; unix: sockets that only the gateway's user can open; auto: unix with API keys and without "
        "model control, else tcp",
    )
    gemma_triton_start_limit: Annotated[int, Field(ge=10)] = Field(
        1800, description="Seconds the embedded Triton may take to load the model"
    )
    gemma_triton_model_control: bool = Field(
        False,
        description="Let the embedded Triton load and unload models on request, for `gemma-triton reload`; "
        "on a machine with other users they could load their own",
    )
    gemma_model_repository: Path | None = Field(
        None, description="Triton's model repository; empty: the one of this checkout"
    )

    @property
    def token(self) -> str | None:
        """The hub token."""
        return self.hf_token.get_secret_value() if self.hf_token else None

    @property
    def triton_uses_sockets(self) -> bool:
        """Whether the embedded Triton listens on Unix sockets instead of TCP ports."""
        if self.gemma_triton_listen == "auto":
            return bool(self.api_keys or self.api_keys_file) and not self.gemma_triton_model_control
        return self.gemma_triton_listen == "unix"

    @property
    def embedded(self) -> bool:
        """Whether a Triton is to be started here."""
        return not self.triton_grpc_url


def without_secrets(environment: Mapping[str, str], *needed: str) -> dict[str, str]:
    """The environment without its secrets, but with those that are ``needed``."""
    return {name: value for name, value in environment.items() if name not in SECRETS or name in needed}


def read(flags: Mapping[str, Any]) -> Settings:
    """The settings of this run.

    Args:
        flags: field name → value, for every flag that was given.

    Raises:
        CannotStart: naming the variable that is wrong.
    """
    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).upper()
        raise CannotStart(f"{name}={first['input']} is not valid: {first['msg']}") from None
