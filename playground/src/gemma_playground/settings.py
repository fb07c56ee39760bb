"""The playground's settings, read once from the command line and the environment."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

MIB: Final = 2**20


def _setting(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Settings:
    """Each field is the environment variable ``PLAYGROUND_`` and its name in capitals.

    ``base_url`` is ``OPENAI_BASE_URL``. The API key is no field, so that no ``repr`` shows it.
    """

    base_url: str = _setting("http://127.0.0.1:8080/v1", "Server that the playground asks")
    host: str = _setting("127.0.0.1", "Address the playground listens on")
    port: int = _setting(7860, "Port of the playground")
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "Names under which the playground may be opened besides localhost, addresses and the machine's own "
        "name, commas between; a name covers its subdomains; `*`: any. Needed behind a proxy",
    )
    max_file_bytes: int = _setting(20 * MIB, "A larger file is not accepted as an upload")
    max_session_bytes: int = _setting(200 * MIB, "Files of one browser that are kept at the same time")
    max_total_bytes: int = _setting(
        1024 * MIB,
        "Files of all browsers that are kept at the same time; conversations of open pages, in memory, "
        "may have as much again",
    )
    file_seconds: int = _setting(4 * 3600, "Files are deleted after so many seconds")
    max_body_bytes: int = _setting(
        64 * MIB, "A longer request body is refused with 413, except uploads, which have limits of their own"
    )
    max_queue: int = _setting(256, "Events that wait at the same time; more are refused with 503")

    def __post_init__(self) -> None:
        """Raises ValueError, naming the variable."""
        least = {"port": 0, **dict.fromkeys((each.name for each in fields(self) if each.type is int), 1)}
        for name, smallest in {**least, "port": 0}.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{variable(name)} must be at least {smallest}.")

    @classmethod
    def read(cls, arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Self:
        """Flags win over the environment; an empty variable is none. Exits with 2 and a sentence."""
        flags = ArgumentParser("gemma_playground", description="A page to talk to an OpenAI server.")
        for name in ("base_url", "host", "port"):  # The API key is no flag, because `ps` shows flags.
            flags.add_argument(f"--{name.replace('_', '-')}", help=f"also {variable(name)}")
        given = {name: value for name, value in vars(flags.parse_args(arguments)).items() if value}
        found = {each.name: environment.get(variable(each.name), "") for each in fields(cls)}
        told = {name: value for name, value in {**found, **given}.items() if value}
        try:
            return cls(**{name: _parsed(cls, name, value) for name, value in told.items()})
        except ValueError as error:
            flags.error(str(error))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "OPENAI_BASE_URL" if name == "base_url" else f"PLAYGROUND_{name.upper()}"


def _parsed(settings: type[Settings], name: str, value: str) -> Any:
    default = getattr(settings, name)
    if isinstance(default, tuple):
        return tuple(each.strip().lower() for each in value.split(",") if each.strip())
    try:
        return type(default)(value)
    except ValueError:
        raise ValueError(f"{variable(name)} must be a whole number, not {value[:40]!r}.") from None
