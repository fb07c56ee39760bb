"""The environment variables of all packages, so that each process can report one that nobody reads."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

LAUNCHER_RUN: Final = "GEMMA_LAUNCHER_RUN"
"""Set by the launcher for the processes that it starts."""

SETTING_NAMES: Final = frozenset(
    {
        "API_ALLOWED_HOSTS",
        "API_AUDIO_UPLOAD_SECONDS",
        "API_BODY_SECONDS",
        "API_CORS_ORIGINS",
        "API_DESCRIBE_SECONDS",
        "API_HEADER_SECONDS",
        "API_HOST",
        "API_KEEP_ALIVE_SECONDS",
        "API_KEYS",
        "API_KEYS_FILE",
        "API_LOG_FORMAT",
        "API_LOG_LEVEL",
        "API_LOG_PROMPTS",
        "API_MAX_AUDIO",
        "API_MAX_AUDIO_BYTES",
        "API_MAX_AUDIO_UPLOAD_BYTES",
        "API_MAX_BODY_BYTES",
        "API_MAX_CONCURRENT",
        "API_MAX_CONNECTIONS",
        "API_MAX_IMAGES",
        "API_MAX_IMAGE_BYTES",
        "API_MAX_IMAGE_PIXELS",
        "API_MEDIA_DOMAINS",
        "API_MEDIA_SECONDS",
        "API_MODEL_ALIASES",
        "API_PORT",
        "API_REQUEST_SECONDS",
        "API_SHUTDOWN_SECONDS",
        "API_SSE_PING_SECONDS",
        "API_STORE",
        "API_STORE_BYTES",
        "API_STORE_DAYS",
        "API_WRITE_SECONDS",
        "GEMMA_CHECKPOINT",
        "GEMMA_COMPILE",
        "GEMMA_DEVICE",
        "GEMMA_DTYPE",
        "GEMMA_ENCODERS",
        "GEMMA_ENGINE",
        "GEMMA_MAX_AUDIO",
        "GEMMA_MAX_AUDIO_SECONDS",
        "GEMMA_MAX_GRAMMAR_BYTES",
        "GEMMA_MAX_IMAGES",
        "GEMMA_MAX_IMAGE_PIXELS",
        "GEMMA_MAX_MODEL_LEN",
        "GEMMA_MAX_NUM_SEQS",
        "GEMMA_MAX_QUEUE",
        "GEMMA_MAX_REQUEST_PIXELS",
        "GEMMA_MEDIA_CACHE_BYTES",
        "GEMMA_MODEL_REPOSITORY",
        "GEMMA_PLAYGROUND",
        "GEMMA_PLE",
        "GEMMA_PREFILL_CHUNK",
        "GEMMA_PREFIX_CACHE_BYTES",
        "GEMMA_QUANTIZE",
        "GEMMA_SPECULATIVE_TOKENS",
        "GEMMA_TOWERS",
        "GEMMA_TRITON_GRPC_PORT",
        "GEMMA_TRITON_HTTP_PORT",
        "GEMMA_TRITON_LISTEN",
        "GEMMA_TRITON_METRICS_PORT",
        "GEMMA_TRITON_MODEL_CONTROL",
        "GEMMA_TRITON_START_LIMIT",
        "GEMMA_VARIANTS",
        "HF_TOKEN",
        "MODEL_NAME",
        "NVIDIA_VISIBLE_DEVICES",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "PLAYGROUND_ALLOWED_HOSTS",
        "PLAYGROUND_FILE_SECONDS",
        "PLAYGROUND_HOST",
        "PLAYGROUND_MAX_BODY_BYTES",
        "PLAYGROUND_MAX_FILE_BYTES",
        "PLAYGROUND_MAX_QUEUE",
        "PLAYGROUND_MAX_SESSION_BYTES",
        "PLAYGROUND_MAX_TOTAL_BYTES",
        "PLAYGROUND_PORT",
        "TRITON_GRPC_URL",
        "TRITON_HTTP_URL",
        "TRITON_LOG_LEVEL",
    }
)
"""Those of ``docs/configuration.md``; a test compares both."""

_SERVICE_LINK: Final = re.compile(r"\w+_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*")


def unknown_settings(environment: Mapping[str, str], prefixes: Iterable[str]) -> list[str]:
    """A sentence for each variable with one of our prefixes that is not a setting.

    Variables that Kubernetes and Docker create for a service of that name are ignored.

    Args:
        environment: the variables.
        prefixes: those that the process reads, such as ``GEMMA_``.
    """
    names = [name for name in environment if name.startswith(tuple(prefixes)) and environment[name]]
    return [_sentence(name) for name in sorted(names) if not _is_known(name, environment[name])]


def reported_settings(environment: Mapping[str, str], prefixes: Iterable[str]) -> list[str]:
    """As ``unknown_settings``; empty in a process of the launcher, which has reported them."""
    return [] if LAUNCHER_RUN in environment else unknown_settings(environment, prefixes)


def _is_known(name: str, value: str) -> bool:
    is_link = _SERVICE_LINK.fullmatch(name) or _ADDRESS.fullmatch(value)
    return name in SETTING_NAMES or name == LAUNCHER_RUN or bool(is_link)


def _sentence(name: str) -> str:
    without_prefix = name.partition("_")[2]  # MODEL_NAME has none
    near = (
        [without_prefix]
        if without_prefix in SETTING_NAMES
        else get_close_matches(name, SETTING_NAMES, 1, 0.8)
    )
    advice = f"did you mean {near[0]}?" if near else "docs/configuration.md lists all settings"
    return f"{name} is not a setting and has no effect; {advice}"
