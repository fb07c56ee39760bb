"""Audio files of any supported format as 16 kHz samples, decoded by a child process."""

import asyncio
import io
import json
import mmap
import os
import sys
import tempfile
import wave
from dataclasses import dataclass
from typing import IO, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gemma_gateway.errors import BadRequest, InternalError

RATE: Final = 16_000
"""Samples per second."""
SHORTEST: Final = 512
"""Samples that a model needs: 32 ms."""
CONCURRENT: Final = 2
"""Files that are decoded at the same time in an event loop; others wait."""

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Recording:
    """Decoded audio.

    Args:
        samples: mono, 16 kHz, in a temporary file without a name, which is mapped into memory.
    """

    samples: Samples

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE


_free: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]" = WeakKeyDictionary()


async def decode_audio(file: IO[bytes], param: str, max_seconds: float) -> Recording:
    """The audio in a file. A cancelled call ends its process.

    Args:
        file: has a file descriptor.
        param: the parameter that contains it, for errors.
        max_seconds: its maximum length.

    Raises:
        BadRequest: it is not audio, is truncated, or exceeds a limit.
    """
    async with _free.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(CONCURRENT)):
        with tempfile.TemporaryFile() as output:
            report = await _run(file, output, max_seconds)
            if "error" in report:
                raise BadRequest(f"The file '{param}' {report['error']}.", param=param, code=report["code"])
            return Recording(_mapped(output, report["samples"], param))


async def _run(file: IO[bytes], output: IO[bytes], max_seconds: float) -> dict[str, Any]:
    """What the child process reports."""
    fds = file.fileno(), output.fileno()
    os.lseek(fds[0], 0, os.SEEK_SET)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gemma_gateway.media.decode_audio",
        *map(str, (*fds, max_seconds)),
        pass_fds=fds,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath},
    )
    try:
        line, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return dict(json.loads(line))
    reason = "cannot be decoded: its decoder failed or used too much memory or time"
    return {"error": reason, "code": "invalid_audio_file"}


async def convert_to_wav(data: bytes, param: str, max_seconds: float) -> bytes:
    """A file that the model cannot read as a WAV file; see ``decode_audio``."""
    with tempfile.TemporaryFile() as file:
        await asyncio.to_thread(file.write, data)
        file.flush()
        recording = await decode_audio(file, param, max_seconds)
        return await asyncio.to_thread(to_wav, recording.samples)


def _mapped(file: IO[bytes], samples: int, param: str) -> Samples:
    if samples < SHORTEST:
        sentence = (
            f"The file '{param}' is {samples / RATE:.3f} seconds long; "
            f"at least {SHORTEST / RATE:g} seconds are required."
        )
        raise BadRequest(sentence, param=param, code="audio_too_short")
    if os.fstat(file.fileno()).st_size != 2 * samples:
        raise InternalError
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.int16)


def to_wav(samples: Samples) -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    return file.getvalue()
