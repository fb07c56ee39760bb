"""The command line: which commands there are, and their flags.

A flag that is named like a field of the settings sets it; one that is not given leaves it to the environment.
"""

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from importlib.metadata import version

FLOATS = ("bfloat16", "float32")


def make_parser() -> ArgumentParser:
    """The parser of everything; its result has the command's name in ``command``."""
    parser = ArgumentParser(
        prog="gemma-triton", description="Gemma 3n on NVIDIA Triton behind an OpenAI-compatible API."
    )
    parser.add_argument("--version", action="version", version=f"gemma-triton {version('gemma-launcher')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {
        "serve": (_serving, "run Triton, the API and the playground until Ctrl-C"),
        "doctor": (_serving, "check this machine; each line is ok or says what to do"),
        "playground": (_playground, "open a page in the browser that talks to any OpenAI-compatible server"),
        "reload": (_reload, "load the model anew while the API stays up"),
        "plan": (_plan, "say what of a model fits into so much memory, and which settings to use"),
        "chat": (_chat, "talk to a model in the terminal, with pictures"),
        "bench": (_bench, "measure any OpenAI-compatible server under load"),
    }
    for name, (add_flags, text) in texts.items():
        add_flags(commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}."))
    return parser


def _serving(parser: ArgumentParser) -> None:
    _model(parser)
    parser.add_argument("--host", dest="api_host", help="address the API listens on (API_HOST; 127.0.0.1)")
    parser.add_argument(
        "--port", dest="api_port", type=int, help="port of the API (API_PORT; 8080); 0: a free one"
    )
    parser.add_argument(
        "--triton-url",
        dest="triton_grpc_url",
        metavar="HOST:PORT",
        help="gRPC address of a Triton that runs already; none is started then (TRITON_GRPC_URL)",
    )
    for kind, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        name = f"gemma_triton_{kind}_port"
        text = f"{kind} port of the embedded Triton ({name.upper()}; {port}); 0: a free one"
        parser.add_argument(f"--triton-{kind}-port", dest=name, type=int, metavar="PORT", help=text)
    parser.add_argument(
        "--playground-port",
        dest="playground_port",
        type=int,
        metavar="PORT",
        help="port of the playground (PLAYGROUND_PORT; 7860); 0: a free one",
    )
    parser.add_argument(
        "--no-playground",
        dest="gemma_playground",
        action="store_false",
        default=None,
        help="start none (GEMMA_PLAYGROUND=false)",
    )
    _repository(parser)
    parser.add_argument(
        "--model-control",
        dest="gemma_triton_model_control",
        action="store_true",
        default=None,
        help="allow `gemma-triton reload` (GEMMA_TRITON_MODEL_CONTROL); "
        "whoever can open a connection on this machine can then load models into Triton",
    )


def _playground(parser: ArgumentParser) -> None:
    _base_url(parser)
    parser.add_argument(
        "--host", dest="playground_host", help="address it listens on (PLAYGROUND_HOST; 127.0.0.1)"
    )
    parser.add_argument(
        "--port", dest="playground_port", type=int, help="its port (PLAYGROUND_PORT; 7860); 0: a free one"
    )


def _reload(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--url", dest="triton_http_url", help="Triton's HTTP address (TRITON_HTTP_URL; the embedded Triton)"
    )
    parser.add_argument(
        "--triton-http-port", dest="gemma_triton_http_port", type=int, metavar="PORT",
        help="port of the embedded Triton (GEMMA_TRITON_HTTP_PORT; 8000)",
    )  # fmt: skip
    _repository(parser)
    parser.add_argument(
        "--unload-first",
        action="store_true",
        help="end the old model before the new one is loaded: for memory that does not hold both; "
        "requests are answered 503 meanwhile",
    )


def _plan(parser: ArgumentParser) -> None:
    _model(parser)
    parser.add_argument(
        "--memory", required=True, help="of the device: 8GiB or 8G (the same), or 8GB (10⁹ bytes each)"
    )
    parser.add_argument(
        "--context", type=_positive, metavar="TOKENS", help="of each request, prompt and answer"
    )
    parser.add_argument("--slots", type=_positive, metavar="N", help="requests at once")
    parser.add_argument(
        "--ple-host",
        action=BooleanOptionalAction,
        default=True,
        help="keep the per-layer embeddings in host memory, mapped from the file",
    )
    parser.add_argument(
        "--text-only", action="store_true", help="leave the towers for pictures and sounds in the file"
    )
    parser.add_argument("--dtype", choices=FLOATS, help="of the computation; as stored if not given")
    parser.add_argument("--reserve", help="memory for CUDA, the process and the system; 1GiB if not given")


def _chat(parser: ArgumentParser) -> None:
    _endpoint(parser)
    parser.add_argument("question", nargs="?", help="ask this alone, print the answer, and leave")
    parser.add_argument("--system", default="", help="system prompt")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="PATH",
        help="picture for the first question; repeatable",
    )
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--max-tokens", type=_positive)


def _bench(parser: ArgumentParser) -> None:
    _endpoint(parser)
    parser.add_argument("--clients", type=_numbers, default=(1, 4, 16), help="at once, in turn: 1,4,16")
    parser.add_argument("--prompt-tokens", type=_positive, default=64)
    parser.add_argument("--max-tokens", type=_positive, default=128)
    parser.add_argument("--requests", type=_positive, help="for each number of clients; 4 for each client")
    parser.add_argument("--images", type=_natural, default=0, metavar="N", help="pictures in each request")
    parser.add_argument("--body", metavar="JSON", help="more fields of each request, as an object")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--plot", action="store_true", help="draw them in the terminal")


def _base_url(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="such as http://host:8080/v1 (OPENAI_BASE_URL; the gateway of this machine)",
    )


def _endpoint(parser: ArgumentParser) -> None:
    _base_url(parser)
    parser.add_argument("--model", help="one of the server's models; the first if not given")
    parser.add_argument("--port", dest="api_port", type=int, help="port of the gateway (API_PORT; 8080)")


def _repository(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model-repository",
        dest="gemma_model_repository",
        metavar="FOLDER",
        help="Triton's model repository (GEMMA_MODEL_REPOSITORY; the one of this checkout)",
    )


def _model(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model", dest="model_name", metavar="MODEL", help="hub id or folder of the checkpoint (MODEL_NAME)"
    )


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def _positive(text: str) -> int:
    if (number := _natural(text)) < 1:
        raise ArgumentTypeError("it must be 1 or more")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part.strip()) for part in text.split(","))
