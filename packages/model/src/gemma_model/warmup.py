"""A first request at start-up, so that the first request of a client is as fast as the next."""

import io
import logging
import queue
import time
import wave
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from gemma_model.engine_types import Engine, EngineOutput
from gemma_model.request_processor import RequestProcessor
from gemma_wire import AudioPart, ImagePart, Message, Options, Part, Request, TextPart, WireError

log = logging.getLogger(__name__)
SIDE = 64  # pixels
SAMPLES = 16_000  # a second


def warm_up(processor: RequestProcessor, engine: Engine, modalities: Collection[str]) -> None:
    """Run a request with a grey image and silent audio, as far as the model supports them.

    Afterwards, libraries, threads and buffers that are created at first use exist.
    """
    started = time.monotonic()
    log.info("warming up with %s", " and ".join(("text", *sorted(modalities))))
    outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
    try:
        with ThreadPoolExecutor(max_workers=1) as other:  # its OpenMP threads end with it
            processed = other.submit(processor.process, _request(modalities)).result()
        engine.submit(processed.engine_request, outputs.put)
        while not (output := outputs.get()).last:
            pass
    except WireError as error:  # for example a context too short for an image; requests may need less
        log.warning("warming up was refused: %s", error.to_line())
        return
    if output.error is not None:
        log.error("warming up failed: %s", output.error)
    log.info("warm after %.1f s", time.monotonic() - started)


def _request(modalities: Collection[str]) -> Request:
    parts: list[Part] = [TextPart(text="Hello")]
    parts += [ImagePart()] if "image" in modalities else []
    parts += [AudioPart()] if "audio" in modalities else []
    return Request(
        messages=(Message(role="user", content=tuple(parts)),),
        images=(_image(),) if "image" in modalities else (),
        audio=(_audio(),) if "audio" in modalities else (),
        max_tokens=3,
        temperature=1.0,
        options=Options(seed=0),
    )


def _image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "grey").save(file, "PNG")
    return file.getvalue()


def _audio() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(SAMPLES)
        audio.writeframes(bytes(2 * SAMPLES))
    return file.getvalue()
