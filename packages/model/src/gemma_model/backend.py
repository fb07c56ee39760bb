"""The Triton Python backend: tensors in, responses out.

Triton's thread calls ``execute``, which returns at once; lanes decode media, lay out prompts and compile
grammars; the outbox sends. Nothing is ever raised to Triton: that would leak the request's shared memory.
"""

import gc
import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import triton_python_backend_utils as pb_utils

from gemma_model import allocator
from gemma_model.answer import Answer
from gemma_model.checkpoint import find_folder, open_checkpoint
from gemma_model.engines import leave_cores_to_engine, make_engine
from gemma_model.lane import ClientGone, Lane
from gemma_model.metrics import Metrics
from gemma_model.outbox import Outbox
from gemma_model.protocol import EngineInfo
from gemma_model.settings import Settings
from gemma_wire import (
    Chunk,
    EngineFailure,
    InvalidRequest,
    ModelInfo,
    Overloaded,
    Request,
    TokenizerInfo,
    Tokens,
    Unavailable,
    WireError,
    read_parameters,
)
from gemma_wire.tensors import INPUTS, Array

log = logging.getLogger("gemma3n")
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
LANE_THREADS = 2
SWITCH_SECONDS = 0.001
"""How long Python's lock may be kept from the engine by a thread that reads a request."""
LARGE = 2**16
"""Bytes from which on a request is read in a lane: it takes longer, and others come meanwhile."""


class TritonPythonModel:
    """What Triton's stub instantiates."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the checkpoint; Triton calls the model ready when this returns."""
        logging.basicConfig(level=logging.INFO, handlers=[TritonLog()], format="%(name)s: %(message)s")
        allocator.tune()
        self._settings = _read_settings(args)
        folder = find_folder(self._settings.model_name, self._settings.checkpoint)
        log.info("loading %s with the %s engine", folder, self._settings.engine)
        started = time.monotonic()
        # Imported here, for that takes seconds (torch), and what is done was to be said first.
        from gemma_model.intake import Intake  # noqa: PLC0415
        from gemma_model.warmup import warm_up  # noqa: PLC0415

        self._checkpoint = open_checkpoint(
            folder, self._settings.max_model_len, text_only=self._settings.towers == "none"
        )
        self._intake = Intake(self._checkpoint, self._settings)
        self._engine = make_engine(folder, self._settings)
        warm_up(self._intake, self._engine, self._checkpoint.soft_tokens)
        leave_cores_to_engine(self._settings)
        self._created = int(time.time())
        self._metrics = Metrics(pb_utils, self._settings.public_name)
        limit = self._settings.max_queue + self._settings.max_num_seqs
        self._text_lane = Lane("text", LANE_THREADS, limit)
        self._media_lane = Lane("media", LANE_THREADS, limit)  # text never waits behind pictures,
        self._grammar_lane = Lane("grammar", LANE_THREADS, limit)  # nor behind grammars
        self._outbox = Outbox(self._engine.cancel, self._show_metrics)
        # To close a constrained answer takes time that no other shall wait, to validate one even more.
        self._grammar_outbox = Outbox(self._engine.cancel, lambda: None)
        self._validation_lane = Lane("validation", 1, limit)
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()  # what is loaded stays: the collector need not look at it while the engine waits
        log.info("%s is loaded after %.1f s", self._settings.public_name, time.monotonic() - started)

    def execute(self, requests: list[Any]) -> None:
        """Take requests in; each is answered through its response sender."""
        for request in requests:
            channel = TritonChannel(request.get_response_sender())
            try:
                arrays, parameters = _arrays(request), request.parameters()
                take = partial(self._take, channel, arrays, parameters)
                if _size(arrays) > LARGE:
                    self._media_lane.submit(take)
                else:
                    take()
            except Exception as error:
                channel.fail(_as_wire_error(error))

    def _take(self, channel: "TritonChannel", arrays: Mapping[str, Array], parameters: str) -> None:
        """Read one request, and answer it or queue it where it belongs."""
        try:
            parsed = Request.from_tensors(arrays, read_parameters(parameters))
            if parsed.options.op == "describe":
                channel.send(self._describe(), last=True)
            elif parsed.options.op == "tokenizer_info":
                channel.send(self._intake.tokenizer_info, last=True)
            else:
                work = self._start if parsed.options.op == "generate" else self._tokens
                self._lane(parsed).submit(partial(work, channel, parsed))
        except Exception as error:
            channel.fail(_as_wire_error(error))

    def finalize(self) -> None:
        """End every generation and every thread; each open answer gets its last response."""
        for lane in self._lanes:
            lane.close()
        self._engine.close()
        self._outbox.close()
        self._grammar_outbox.close()
        self._validation_lane.close()
        self._intake.close()

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return self._text_lane, self._media_lane, self._grammar_lane

    def _lane(self, request: Request) -> Lane:
        if request.images or request.audio:
            return self._media_lane
        constrained = request.options.grammar is not None or request.options.tools
        return self._grammar_lane if constrained else self._text_lane

    def _start(self, channel: "TritonChannel", request: Request) -> None:
        try:
            job = self._intake.accept(request, channel.cancelled)
            answer = Answer(channel, request.stream, job.wording, self._validation_lane.submit)
            outbox = self._outbox if job.generation.constraint is None else self._grammar_outbox
            outbox.post(answer, lambda listen: self._engine.submit(job.generation, listen))
        except ClientGone:
            channel.close()
        except Exception as error:
            channel.fail(_as_wire_error(error))

    def _tokens(self, channel: "TritonChannel", request: Request) -> None:
        try:
            channel.send(self._intake.tokens(request, channel.cancelled), last=True)
        except ClientGone:
            channel.close()
        except Exception as error:
            channel.fail(_as_wire_error(error))

    def _show_metrics(self) -> None:
        self._metrics.show(self._info(), self._engine.observations())

    def _info(self) -> EngineInfo:
        """The engine's, with what is still in the lanes counted as waiting."""
        info = self._engine.info()
        return replace(info, waiting=info.waiting + sum(lane.pending for lane in self._lanes))

    def _describe(self) -> ModelInfo:
        """What is served.

        Raises:
            EngineFailure: when nothing will be any more; who watches then starts the server anew.
        """
        info = self._info()
        if info.failure is not None:
            raise EngineFailure(f"the engine has stopped: {info.failure}")
        return ModelInfo(
            model=self._settings.public_name,
            variants=self._intake.variants,
            created=self._created,
            engine=info.name,
            device=info.device,
            dtype=info.dtype,
            context_length=self._checkpoint.context_length,
            max_num_seqs=info.max_num_seqs,
            memory_bytes=info.memory_bytes,
            modalities=("text", *self._checkpoint.soft_tokens),
            running=info.running,
            waiting=info.waiting,
        )


class TritonChannel:
    """A ``Channel`` over Triton's response sender."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, answer: Chunk | ModelInfo | TokenizerInfo | Tokens, *, last: bool) -> None:
        """See ``Channel.send``."""
        tensors = [pb_utils.Tensor(name, array) for name, array in answer.to_tensors().items()]
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if last else 0)

    def fail(self, error: WireError) -> None:
        """See ``Channel.fail``."""
        triton_error = pb_utils.TritonError(error.to_line(), _triton_code(error))
        self._sender.send(pb_utils.InferenceResponse([], triton_error), flags=FINAL)

    def close(self) -> None:
        """See ``Channel.close``."""
        self._sender.send(flags=FINAL)

    def cancelled(self) -> bool:
        """See ``Channel.cancelled``."""
        return bool(self._sender.is_cancelled())


def _read_settings(args: Mapping[str, str]) -> Settings:
    parameters = json.loads(args["model_config"]).get("parameters", {})
    return Settings.read({name: value["string_value"] for name, value in parameters.items()})


def _arrays(request: Any) -> dict[str, Array]:
    """The inputs that were given, by name; copies, since the request may be gone before they are read."""
    given = ((tensor.name, pb_utils.get_input_tensor_by_name(request, tensor.name)) for tensor in INPUTS)
    return {name: tensor.as_numpy().copy() for name, tensor in given if tensor is not None}


def _size(arrays: Mapping[str, Array]) -> int:
    """Bytes of the inputs; those of many elements are large whatever they hold."""
    elements = [element for array in arrays.values() if array.dtype == object for element in array.flat[:64]]
    return sum(map(len, elements)) + 1024 * sum(array.size for array in arrays.values())


def _as_wire_error(error: Exception) -> WireError:
    if isinstance(error, WireError):
        return error
    log.error("a request failed", exc_info=error)
    return EngineFailure(f"{type(error).__name__}: {error}")


def _triton_code(error: WireError) -> Any:
    """Triton turns INVALID_ARG into HTTP 400, UNAVAILABLE into 503."""
    if isinstance(error, InvalidRequest):
        return pb_utils.TritonError.INVALID_ARG
    busy = isinstance(error, Overloaded | Unavailable)
    return pb_utils.TritonError.UNAVAILABLE if busy else pb_utils.TritonError.INTERNAL


class TritonLog(logging.Handler):
    """What is logged in Python goes to Triton's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        logger = pb_utils.Logger
        say = logger.log_error if record.levelno >= logging.ERROR else logger.log_warn
        (say if record.levelno >= logging.WARNING else logger.log_info)(self.format(record))
