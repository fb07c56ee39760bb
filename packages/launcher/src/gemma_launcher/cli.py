"""The command line: the subcommands of ``gemma-triton`` and their flags.

A flag that sets a field of ``LauncherSettings`` takes its help text and its default from that field. Without
the flag, the field is read from its environment variable.
"""

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from gemma_launcher.argument_parser import SuggestingParser, suggestion
from gemma_launcher.settings import LauncherSettings

AddFlags = Callable[[ArgumentParser], object]


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Args:
        module: where its function ``run(settings, options)`` is; imported only when the command is run.
        help: what it does.
        settings: flag → field of ``LauncherSettings``.
        add_flags: adds the flags that are no settings.
        needs_posix: whether it does not run on Windows.
        reports_unknown: whether it reports unknown variables itself, in its own form.
    """

    module: str
    help: str
    settings: Mapping[str, str]
    add_flags: AddFlags = lambda _: None
    needs_posix: bool = False
    reports_unknown: bool = False


def build_parser() -> ArgumentParser:
    """The parser of all commands.

    Its result has the subcommand's name in ``command``, and all parsers by name in ``parsers``, itself as "".
    """
    parser = SuggestingParser(
        prog="gemma-triton",
        description="Gemma 3n on NVIDIA Triton behind an OpenAI-compatible API.",
        commands=COMMANDS,
    )
    parsers: dict[str, ArgumentParser] = {"": parser}
    parser.set_defaults(parsers=parsers)
    parser.add_argument("--version", action="version", version=f"gemma-triton {version('gemma-launcher')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        text = command.help
        added = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parsers[name] = added
        for flag, setting in command.settings.items():
            _add_setting(added, flag, setting)
        command.add_flags(added)
    return parser


def _add_setting(parser: ArgumentParser, flag: str, name: str) -> None:
    """Adds a flag for a field of the settings; the settings validate its value."""
    info = LauncherSettings.model_fields[name]
    description = (info.description or "").replace("%", "%%")
    if info.annotation is bool:
        value = not flag.startswith("--no-")
        help_text = f"set {name.upper()}={str(value).lower()}. {description}"
        parser.add_argument(flag, dest=name, action="store_const", const=value, help=help_text)
    else:
        default = f"; default {info.default}" if info.default not in ("", None) else ""
        metavar = _METAVARS.get(name.rpartition("_")[2], "FOLDER")
        parser.add_argument(flag, dest=name, metavar=metavar, help=f"{description} ({name.upper()}{default})")


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")


def _add_help(parser: ArgumentParser) -> None:
    parser.add_argument(
        "topic",
        nargs="?",
        default="",
        type=_command,
        choices=("", *COMMANDS),
        metavar="COMMAND",
        help="its name",
    )


def _add_completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="source its output in your shell")


def _add_reload(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--unload-first",
        action="store_true",
        help="unload the old model before the new one is loaded, if the memory does not hold both; "
        "requests get status 503 meanwhile",
    )


def _add_plan(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--memory", required=True, help="of the device: 8GiB or 8G (the same), or 8GB (10⁹ bytes each)")
    add("--context", type=_positive, metavar="TOKENS", help="prompt and response tokens of each request")
    add("--slots", type=_positive, metavar="N", help="concurrent requests")
    add(
        "--ple-host",
        action=BooleanOptionalAction,
        default=True,
        help="keep the per-layer embeddings in host memory, mapped from the file",
    )
    add("--text-only", action="store_true", help="do not load the vision and audio towers")
    add(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="what runs the model; a CPU uses the towers where they are, in the file, mapped into memory",
    )
    add("--quantize", choices=("int8", "int4"), help="GEMMA_QUANTIZE of the server")
    add("--dtype", choices=("bfloat16", "float32"), help="of the computation (default: as stored)")
    add("--reserve", help="memory kept free for CUDA, the process and the system (default: 1GiB)")
    _add_json(parser)


def _add_quantize(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder or hub id of a checkpoint that is not quantised")
    add("target", metavar="TARGET", help="folder to write; it must not exist, or be empty")
    add("--format", choices=("int8", "int4"), required=True, help="of the matrices of the layers")
    add(
        "--embedding",
        choices=_STORED_AS,
        default="int8",
        help="of the token embedding, which is the output head as well; none: as stored (default: int8)",
    )
    add(
        "--per-layer-table",
        choices=_STORED_AS,
        default="int8",
        help="of the per-layer embeddings; none: as stored (default: int8)",
    )


def _add_chat(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help="one of the server's models (default: its first)")
    add("prompt", nargs="?", help="send only this message, print the response and exit")
    add("--system", default="", help="system prompt")
    for kind in ("image", "audio"):
        text = f"{kind} for the first message; repeatable"
        add(f"--{kind}", action="append", default=[], metavar="PATH", help=text)
    add("--temperature", type=float)
    add("--max-tokens", type=_positive)
    add("--json", action="store_true", help="print each response as one line of JSON, and nothing else")


def _add_transcribe(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="WAV, FLAC, MP3, Ogg, M4A or WebM")
    add("--model", help="one of the server's models (default: its first)")
    add(
        "--format",
        choices=("text", "srt", "vtt", "json"),
        default="text",
        help="of the output; srt and vtt are subtitles, json has the times of the segments (default: text)",
    )
    add("--language", metavar="CODE", help="of the speech, such as en (default: the model recognises it)")
    add("--output", metavar="PATH", help="file, or folder for several files (default: the standard output)")


def _add_bench(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help="one of the server's models (default: its first)")
    add(
        "--clients",
        type=_numbers,
        default=(1, 4, 16),
        help="concurrent clients per level (default: 1,4,16)",
    )
    add("--prompt-tokens", type=_positive, default=64)
    add("--max-tokens", type=_positive, default=128)
    add("--requests", type=_positive, help="per level (default: 4 per client)")
    add("--images", type=_natural, default=0, metavar="N", help="images in each request")
    add("--body", metavar="JSON", help="further fields of each request, as an object")
    add(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="print the results as JSON, and nothing else; with FILE, write them to it as well as the table",
    )
    add("--plot", action="store_true", help="draw the results in the terminal")


def _command(text: str) -> str:
    if text and text not in COMMANDS:
        raise ArgumentTypeError(f"there is no command {text!r}{suggestion(text, COMMANDS)}")
    return text


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _positive(text: str) -> int:
    if (number := _natural(text)) < 1:
        raise ArgumentTypeError("it must be 1 or more")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in text.split(","))


_STORED_AS: Final = ("int8", "int4", "none")
_METAVARS: Final = {"name": "MODEL", "url": "URL", "port": "PORT", "host": "HOST"}
_SERVE: Final = {
    "--model": "model_name",
    "--host": "api_host",
    "--port": "api_port",
    "--triton-url": "triton_grpc_url",
    "--triton-http-port": "gemma_triton_http_port",
    "--triton-grpc-port": "gemma_triton_grpc_port",
    "--triton-metrics-port": "gemma_triton_metrics_port",
    "--playground-port": "playground_port",
    "--no-playground": "gemma_playground",
    "--model-repository": "gemma_model_repository",
    "--model-control": "gemma_triton_model_control",
}
_PLAYGROUND: Final = {
    "--base-url": "openai_base_url",
    "--host": "playground_host",
    "--port": "playground_port",
}
_RELOAD: Final = {
    "--url": "triton_http_url",
    "--triton-http-port": "gemma_triton_http_port",
    "--model-repository": "gemma_model_repository",
}
_CLIENT: Final = {"--base-url": "openai_base_url", "--port": "api_port"}

COMMANDS: Final = {
    "serve": Command(
        "processes.serve",
        "run Triton, the API and the playground until Ctrl-C",
        _SERVE,
        needs_posix=True,
        reports_unknown=True,
    ),
    "doctor": Command(
        "tools.doctor",
        "check this machine and say how to fix what is wrong",
        _SERVE,
        _add_json,
        needs_posix=True,
        reports_unknown=True,
    ),
    "playground": Command(
        "tools.playground", "serve the browser playground for any OpenAI-compatible server", _PLAYGROUND
    ),
    "reload": Command("tools.reload", "load the model again while the API stays up", _RELOAD, _add_reload),
    "plan": Command(
        "tools.memory_planner.command",
        "show what fits into a given amount of memory, and the settings to use",
        {"--model": "model_name"},
        _add_plan,
    ),
    "quantize": Command(
        "tools.quantize",
        "write a copy of a checkpoint with weights of 8 or 4 bits, in the compressed-tensors format",
        {},
        _add_quantize,
    ),
    "chat": Command(
        "tools.chat.command", "chat with a model in the terminal, with images and audio", _CLIENT, _add_chat
    ),
    "transcribe": Command(
        "tools.transcribe", "transcribe audio files to text or subtitles", _CLIENT, _add_transcribe
    ),
    "bench": Command("tools.bench.command", "benchmark any OpenAI-compatible server", _CLIENT, _add_bench),
    "help": Command("tools.help", "show the help of a command", {}, _add_help),
    "completion": Command(
        "tools.completion", "print a script that completes commands in your shell", {}, _add_completion
    ),
}
