"""The playground's settings, read once from the command line and the environment."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

MIB: Final = 2**20


def _setting(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class PlaygroundSettings:
    """Each field is read from the environment variable ``PLAYGROUND_`` + its name in capitals.

    ``base_url`` is ``OPENAI_BASE_URL``. The API key is not a field, so that ``repr`` does not show it.
    """

    base_url: str = _setting("http://127.0.0.1:8080/v1", "Base URL of the server")
    host: str = _setting("127.0.0.1", "Address the playground listens on")
    port: int = _setting(7860, "Port of the playground")
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "Host names of the playground in addition to localhost, IP addresses and the machine's own name, "
        "separated by commas; a name includes its subdomains; `*`: any. Needed behind a proxy",
    )
    max_file_bytes: int = _setting(20 * MIB, "Maximum size of an uploaded file")
    max_session_bytes: int = _setting(200 * MIB, "Maximum total size of the files of one browser")
    max_total_bytes: int = _setting(
        1024 * MIB,
        "Maximum total size of the files of all browsers; conversations of open pages, in memory, have a "
        "limit of the same size",
    )
    file_seconds: int = _setting(4 * 3600, "Files are deleted after this many seconds")
    max_body_bytes: int = _setting(
        64 * MIB, "Maximum request body (status 413 above it); uploads have their own limits"
    )
    max_queue: int = _setting(256, "Maximum number of waiting events (status 503 above it)")

    def __post_init__(self) -> None:
        """Raises ValueError, naming the variable."""
        least = {"port": 0, **dict.fromkeys((each.name for each in fields(self) if each.type is int), 1)}
        for name, smallest in {**least, "port": 0}.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{variable(name)} must be at least {smallest}.")

    @classmethod
    def read(cls, arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Self:
        """Flags win over the environment; empty variables are ignored. An invalid value exits with code 2."""
        flags = ArgumentParser("gemma_playground", description="A chat page for an OpenAI-compatible server.")
        for name in ("base_url", "host", "port"):  # The API key is not a flag, because `ps` shows flags.
            flags.add_argument(f"--{name.replace('_', '-')}", help=f"also {variable(name)}")
        given = {name: value for name, value in vars(flags.parse_args(arguments)).items() if value}
        found = {each.name: environment.get(variable(each.name), "") for each in fields(cls)}
        given_values = {name: value for name, value in {**found, **given}.items() if value}
        try:
            return cls(**{name: _parsed(cls, name, value) for name, value in given_values.items()})
        except ValueError as error:
            flags.error(str(error))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "OPENAI_BASE_URL" if name == "base_url" else f"PLAYGROUND_{name.upper()}"


def _parsed(settings: type[PlaygroundSettings], name: str, value: str) -> Any:
    default = getattr(settings, name)
    if isinstance(default, tuple):
        return tuple(each.strip().lower() for each in value.split(",") if each.strip())
    try:
        return type(default)(value)
    except ValueError:
        raise ValueError(f"{variable(name)} must be a whole number, not {value[:40]!r}.") from None
