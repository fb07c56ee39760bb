"""The Triton Python backend: receives requests as tensors and sends responses.

Triton's thread calls ``execute``, which returns at once. Worker pools decode media, build prompts and compile
grammars; a response sender sends. Nothing is ever raised to Triton: that would leak the request's shared
memory.
"""

import gc
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import triton_python_backend_utils as pb_utils

from gemma_model import malloc
from gemma_model.checkpoint import find_folder, open_checkpoint
from gemma_model.engine import create_engine, leave_cores_to_engine
from gemma_model.engine_types import EngineInfo
from gemma_model.metrics import Metrics
from gemma_model.response import Channel, ResponseStream
from gemma_model.response_sender import ResponseSender
from gemma_model.settings import PREFIX, Settings, as_invalid_setting
from gemma_model.subscriptions import SubscribedChannel, Subscriptions
from gemma_model.worker_pool import RequestAborted, WorkerPool
from gemma_wire import (
    Chunk,
    ChunkBatch,
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
from gemma_wire.setting_names import reported_settings
from gemma_wire.tensors import INPUTS, Array

log = logging.getLogger("gemma3n")
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
POOL_THREADS = 2
SWITCH_SECONDS = 0.001
"""How long a thread that parses a request may keep the GIL from the engine."""
LARGE = 2**16
"""Bytes from which on a request is parsed in a worker pool, so that it does not delay the others."""


class TritonPythonModel:
    """The class that Triton's stub instantiates."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the checkpoint; the model is ready when this returns.

        Raises:
            InvalidSetting: a setting or the checkpoint is wrong.
        """
        logging.basicConfig(level=logging.INFO, handlers=[TritonLog()], format="%(name)s: %(message)s")
        for sentence in reported_settings(os.environ, (PREFIX,)):
            log.warning(sentence)
        malloc.tune()
        try:
            self._load(args)
        except InvalidRequest as error:
            raise as_invalid_setting(error) from None

    def _load(self, args: Mapping[str, str]) -> None:
        self._settings = _read_settings(args)
        settings = self._settings
        folder = find_folder(
            settings.model_name,
            settings.checkpoint,
            settings.encoders,
            text_only=settings.towers == "none",
        )
        log.info("loading %s with the %s engine", folder, self._settings.engine)
        started = time.monotonic()
        # Imported after the log line above, because importing torch takes seconds.
        from gemma_model.request_processor import RequestProcessor  # noqa: PLC0415
        from gemma_model.warmup import warm_up  # noqa: PLC0415

        self._checkpoint = open_checkpoint(
            folder, self._settings.max_model_len, text_only=self._settings.towers == "none"
        )
        self._processor = RequestProcessor(self._checkpoint, self._settings)
        self._engine = create_engine(folder, self._settings)
        # On a CPU an encoder takes seconds for the first image as for the next.
        on_cpu = self._engine.info().device.startswith("cpu")
        warm_up(self._processor, self._engine, () if on_cpu else self._checkpoint.soft_tokens)
        leave_cores_to_engine(self._settings)
        self._created = int(time.time())
        self._metrics = Metrics(pb_utils, self._settings.public_name)
        limit = self._settings.max_queue + self._settings.max_num_seqs
        self._text_pool = WorkerPool("text", POOL_THREADS, limit)
        self._media_pool = WorkerPool("media", POOL_THREADS, limit)  # text never waits for media,
        self._grammar_pool = WorkerPool("grammar", POOL_THREADS, limit)  # nor for grammars
        self._subscriptions = Subscriptions()
        flush = self._subscriptions.flush
        self._sender = ResponseSender(self._engine.cancel, self._update, flush)
        # Completing a constrained output takes time, and validating one even more: others must not wait.
        self._grammar_sender = ResponseSender(self._engine.cancel, lambda: None, flush)
        self._validation_pool = WorkerPool("validation", 1, limit)
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()  # exclude loaded objects, which stay, from garbage collection
        log.info("%s is loaded after %.1f s", self._settings.public_name, time.monotonic() - started)

    def execute(self, requests: list[Any]) -> None:
        """Accept requests; the responses go through each request's response sender."""
        for request in requests:
            channel = TritonChannel(request.get_response_sender())
            try:
                arrays, parameters = _arrays(request), request.parameters()
                take = partial(self._take, channel, arrays, parameters)
                if _size(arrays) > LARGE:
                    self._media_pool.submit(take)
                else:
                    take()
            except Exception as error:
                channel.fail(_as_wire_error(error))

    def _take(self, channel: "TritonChannel", arrays: Mapping[str, Array], parameters: str) -> None:
        """Parse one request, and respond to it or queue it."""
        try:
            parsed = Request.from_tensors(arrays, read_parameters(parameters))
            if parsed.options.op == "describe":
                channel.send(self._describe(), last=True)
            elif parsed.options.op == "tokenizer_info":
                channel.send(self._processor.tokenizer_info, last=True)
            elif parsed.options.op == "subscribe":
                self._subscriptions.open(parsed.options.subscription or "", channel)
            else:
                work = self._start if parsed.options.op == "generate" else self._tokens
                self._pool(parsed).submit(partial(work, channel, parsed))
        except Exception as error:
            channel.fail(_as_wire_error(error))

    def finalize(self) -> None:
        """End all requests and threads; each open response stream is ended."""
        for pool in self._pools:
            pool.close()
        self._engine.close()
        self._sender.close()
        self._grammar_sender.close()
        self._validation_pool.close()
        self._subscriptions.close()
        self._processor.close()

    @property
    def _pools(self) -> tuple[WorkerPool, ...]:
        return self._text_pool, self._media_pool, self._grammar_pool

    def _pool(self, request: Request) -> WorkerPool:
        if request.images or request.audio:
            return self._media_pool
        constrained = request.options.grammar is not None or request.options.tools
        return self._grammar_pool if constrained else self._text_pool

    def _start(self, channel: "TritonChannel", request: Request) -> None:
        try:
            processed = self._processor.process(request, channel.cancelled)
            engine_request = processed.engine_request
            response = ResponseStream(
                self._to_client(channel, request),
                request.stream,
                processed.output_options,
                self._validation_pool.submit,
            )
            sender = self._sender if engine_request.constraint is None else self._grammar_sender
            sender.start(response, lambda on_output: self._engine.submit(engine_request, on_output))
        except RequestAborted:
            channel.close()
        except Exception as error:
            channel.fail(_as_wire_error(error))

    def _to_client(self, channel: "TritonChannel", request: Request) -> Channel:
        """By way of the subscription that the request names, if it names one."""
        name, receiver = request.options.subscription, request.options.receiver
        return channel if name is None else SubscribedChannel(channel, self._subscriptions, name, receiver)

    def _tokens(self, channel: "TritonChannel", request: Request) -> None:
        try:
            channel.send(self._processor.tokens(request, channel.cancelled), last=True)
        except RequestAborted:
            channel.close()
        except Exception as error:
            channel.fail(_as_wire_error(error))

    def _update(self) -> None:
        self._subscriptions.close_cancelled()
        self._metrics.update(self._info(), self._engine.observations())

    def _info(self) -> EngineInfo:
        """The engine's, with the requests in the worker pools counted as waiting."""
        info = self._engine.info()
        return replace(info, waiting=info.waiting + sum(pool.pending for pool in self._pools))

    def _describe(self) -> ModelInfo:
        """The response to ``op=describe``.

        Raises:
            EngineFailure: the engine has stopped for good; a supervisor then restarts the server.
        """
        info = self._info()
        if info.failure is not None:
            raise EngineFailure(f"the engine has stopped: {info.failure}")
        return ModelInfo(
            model=self._settings.public_name,
            variants=self._processor.variants,
            created=self._created,
            engine=info.name,
            device=info.device,
            dtype=info.dtype,
            context_length=self._checkpoint.context_length,
            max_num_seqs=info.max_num_seqs,
            memory_bytes=info.memory_bytes,
            modalities=("text", *self._checkpoint.soft_tokens),
            audio_seconds=self._processor.audio_seconds,
            audio_tokens=self._checkpoint.soft_tokens.get("audio"),
            running=info.running,
            waiting=info.waiting,
        )


class TritonChannel:
    """A ``Channel`` over Triton's response sender."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, response: Chunk | ChunkBatch | ModelInfo | TokenizerInfo | Tokens, *, last: bool) -> None:
        """See ``Channel.send``."""
        tensors = [pb_utils.Tensor(name, array) for name, array in response.to_tensors().items()]
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
    """The inputs by name; copies, because they may be parsed after the request is released."""
    given = ((tensor.name, pb_utils.get_input_tensor_by_name(request, tensor.name)) for tensor in INPUTS)
    return {name: tensor.as_numpy().copy() for name, tensor in given if tensor is not None}


def _size(arrays: Mapping[str, Array]) -> int:
    """Bytes of the inputs, estimated; an input with many elements counts as large."""
    elements = [element for array in arrays.values() if array.dtype == object for element in array.flat[:64]]
    return sum(map(len, elements)) + 1024 * sum(array.size for array in arrays.values())


def _as_wire_error(error: Exception) -> WireError:
    if isinstance(error, WireError):
        return error
    log.error("a request failed", exc_info=error)
    return EngineFailure(f"{type(error).__name__}: {error}")


def _triton_code(error: WireError) -> Any:
    """Triton maps INVALID_ARG to HTTP 400 and UNAVAILABLE to 503."""
    if isinstance(error, InvalidRequest):
        return pb_utils.TritonError.INVALID_ARG
    busy = isinstance(error, Overloaded | Unavailable)
    return pb_utils.TritonError.UNAVAILABLE if busy else pb_utils.TritonError.INTERNAL


class TritonLog(logging.Handler):
    """Sends Python's log records to Triton's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        logger = pb_utils.Logger
        write = logger.log_error if record.levelno >= logging.ERROR else logger.log_warn
        (write if record.levelno >= logging.WARNING else logger.log_info)(self.format(record))
