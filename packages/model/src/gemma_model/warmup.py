"""A first request of our own, so that nobody else's is slower than the next one."""

import io
import logging
import queue
import time
import wave
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from gemma_model.intake import Intake
from gemma_model.protocol import Engine, Step
from gemma_wire import AudioPart, ImagePart, Message, Options, Part, Request, TextPart, WireError

log = logging.getLogger(__name__)
SIDE = 64  # pixels
SAMPLES = 16_000  # a second


def warm_up(intake: Intake, engine: Engine, modalities: Collection[str]) -> None:
    """Ask about a grey picture and a silent sound, as far as the model takes them; whatever it answers.

    Libraries, threads and buffers that are made at the first use are there when this returns.
    """
    started = time.monotonic()
    log.info("warming up with %s", " and ".join(("text", *sorted(modalities))))
    steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
    try:
        with ThreadPoolExecutor(max_workers=1) as other:  # with which its pool of workers ends
            job = other.submit(intake.accept, _question(modalities)).result()
        engine.submit(job.generation, steps.put)
        while not (step := steps.get()).last:
            pass
    except WireError as error:  # a context too short for a picture, say; others may ask for less
        log.warning("warming up was refused: %s", error.to_line())
        return
    if step.error is not None:
        log.error("warming up failed: %s", step.error)
    log.info("warm after %.1f s", time.monotonic() - started)


def _question(modalities: Collection[str]) -> Request:
    parts: list[Part] = [TextPart(text="Hello")]
    parts += [ImagePart()] if "image" in modalities else []
    parts += [AudioPart()] if "audio" in modalities else []
    return Request(
        messages=(Message(role="user", content=tuple(parts)),),
        images=(_picture(),) if "image" in modalities else (),
        audio=(_sound(),) if "audio" in modalities else (),
        max_tokens=3,
        temperature=1.0,
        options=Options(seed=0),
    )


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "grey").save(file, "PNG")
    return file.getvalue()


def _sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLES)
        sound.writeframes(bytes(2 * SAMPLES))
    return file.getvalue()
