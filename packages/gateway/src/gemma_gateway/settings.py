"""What an operator may set, read once from the environment."""

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 2**20


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
    max_body_bytes: int = Field(64 * MIB, ge=1, description="A longer request body is refused with 413.")
    max_images: int = Field(16, ge=0, description="Images in one request.")
    max_image_bytes: int = Field(32 * MIB, ge=1, description="Encoded size of one image.")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=178_000_000,
        description="Width x height of one image; Pillow itself stops at 178 M.",
    )
    describe_seconds: float = Field(5, gt=0, description="How long a health check waits for the model.")
    shutdown_seconds: int = Field(3, ge=0, description="How long open answers may go on after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Verbosity.")

    @property
    def triton_targets(self) -> tuple[str, ...]:
        """The servers of ``triton_grpc_url``, one target each."""
        return tuple(target.strip() for target in self.triton_grpc_url.split(",") if target.strip())
