"""What the playground is told when it starts."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Settings:
    """Read once, from flags and the environment; the key never from a flag, which would show in ``ps``."""

    base_url: str = "http://127.0.0.1:8080/v1"
    api_key: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 7860
    max_file_bytes: int = 20 * 2**20

    @property
    def root(self) -> str:
        """Where health and metrics are: the base URL without its version."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    @classmethod
    def read(cls, arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Self:
        """Flags win over the environment; an empty variable is none. Raises SystemExit as argparse does."""
        told = {name: value for name, value in environment.items() if value}
        flags = argparse.ArgumentParser("gemma_playground", description="A page to talk to an OpenAI server.")
        flags.add_argument("--base-url", default=told.get("OPENAI_BASE_URL", cls.base_url))
        flags.add_argument("--host", default=told.get("PLAYGROUND_HOST", cls.host))
        flags.add_argument("--port", type=int, default=told.get("PLAYGROUND_PORT", cls.port))
        return cls(api_key=told.get("OPENAI_API_KEY", ""), **vars(flags.parse_args(arguments)))
