"""What several tests need: a crafted checkpoint, a toy model, and proof that nothing is left."""

import json
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gemma_launcher.processes import orphan_cleanup

MODEL = """
import json, os, signal, threading, time

import triton_python_backend_utils as pb_utils

from gemma_wire import Chunk, InvalidRequest, ModelInfo, Request, Usage

print("the toy is imported", flush=True)
if "TOY_CRASH" in os.environ:
    os.kill(os.getpid(), signal.SIGSEGV)


class TritonPythonModel:
    def initialize(self, args):
        time.sleep(float(os.environ.get("TOY_LOAD_S", "0")))
        if "TOY_TROUBLE" in os.environ:
            raise ValueError(os.environ["TOY_TROUBLE"])
        self.created, self.open = int(time.time()), []

    def execute(self, requests):
        for request in requests:
            arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            asked = Request.from_tensors(arrays, json.loads(request.parameters() or "{}"))
            channel = Channel(request.get_response_sender())
            if asked.options.op == "describe":
                channel.send(self.info(), last=True)
            elif asked.options.op == "subscribe":
                channel.refuse(InvalidRequest("the toy sends each response in its own stream", "options.op"))
            else:
                thread = threading.Thread(target=channel.talk, args=(asked.max_tokens or 5,))
                thread.start()
                self.open.append(thread)

    def info(self):
        return ModelInfo(
            model=os.environ["MODEL_NAME"], created=self.created, engine=os.environ["GEMMA_CHECKPOINT"],
            device="cpu", dtype="float32", context_length=100_000, max_num_seqs=64, memory_bytes=4,
            modalities=("text",),
        )

    def finalize(self):
        for thread in self.open:
            thread.join()


class Channel:
    def __init__(self, sender):
        self.sender = sender

    def send(self, answer, last=False):
        tensors = [pb_utils.Tensor(name, array) for name, array in answer.to_tensors().items()]
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self.sender.send(pb_utils.InferenceResponse(output_tensors=tensors), flags=flags)

    def refuse(self, error):
        trouble = pb_utils.TritonError(error.to_line())
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self.sender.send(pb_utils.InferenceResponse(error=trouble), flags=flags)

    def talk(self, count):
        # Its process id, ten times a second.
        for _ in range(count):
            if self.sender.is_cancelled():
                break
            self.send(Chunk(text=f"{os.getpid()} "))
            time.sleep(0.1)
        usage = Usage(prompt_tokens=1, completion_tokens=count)
        self.send(Chunk(finish_reason="length", usage=usage), last=True)
"""

PLAYGROUND = """
import json, os, signal, sys, tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer

if "TOY_PLAYGROUND_TROUBLE" in os.environ:
    raise ImportError(os.environ["TOY_PLAYGROUND_TROUBLE"])


class Page(BaseHTTPRequestHandler):
    # What it was started with.
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}).encode())

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
tempfile.mkdtemp()  # for uploads, and never removed
address = os.environ["PLAYGROUND_HOST"], int(os.environ["PLAYGROUND_PORT"])
server = HTTPServer(address, Page)
print("playground: http://%s:%s" % address, flush=True)
server.serve_forever()
"""

REPOSITORY = Path(__file__).parents[3] / "packages/model/src/gemma_model/model_repository"


def safetensors(tensors: dict[str, int]) -> bytes:
    """A safetensors file of F32 tensors, name → number of elements."""
    header, end = {}, 0
    for name, count in tensors.items():
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [end, end + 4 * count]}
        end += 4 * count
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@pytest.fixture
def make_safetensors() -> Callable[[dict[str, int]], bytes]:
    return safetensors


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    """A folder that passes for a checkpoint."""
    return toy_checkpoint(tmp_path)


def toy_checkpoint(parent: Path) -> Path:
    folder = parent / "toy-checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gemma3n"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors({"weight": 3}))
    return folder


@pytest.fixture(scope="session")
def toy_flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The flags of a launcher that serves the toy."""
    folder = tmp_path_factory.mktemp("toy")
    return "--model", str(toy_checkpoint(folder)), "--model-repository", str(toy_repository(folder))


def toy_repository(parent: Path) -> Path:
    """Our config.pbtxt with a model that only tells what it is."""
    folder = parent / "repository" / "gemma3n"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text((REPOSITORY / "gemma3n" / "config.pbtxt").read_text())
    (folder / "1" / "model.py").write_text(MODEL)
    return folder.parent


@pytest.fixture(scope="session")
def toy_playground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH in which the playground only tells what it was started with."""
    folder = tmp_path_factory.mktemp("playground")
    (folder / "gemma_playground").mkdir()
    (folder / "gemma_playground" / "__init__.py").touch()
    (folder / "gemma_playground" / "__main__.py").write_text(PLAYGROUND)
    return folder


@pytest.fixture
def wait_for() -> Callable[..., None]:
    def wait(condition: Callable[[], object], limit_s: float = 10.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit_s} s"
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def leftovers() -> Callable[[int], list[object]]:
    """Everything that bears the mark of the launcher with a given process id, itself excepted."""

    def look(launcher: int) -> list[object]:
        mark = f"gemma-{launcher}-"
        files = [
            *orphan_cleanup.SHARED_MEMORY.glob(f"{mark}*"),
            *Path(tempfile.gettempdir()).glob(f"{mark}*"),
        ]
        return [*files, *(process for process in psutil.process_iter() if marked(process, mark))]

    return look


def marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(orphan_cleanup.RUN_VARIABLE, "").startswith(mark)
    except psutil.Error:
        return False
