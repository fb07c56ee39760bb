"""The complete engine: text for images and audio from GGUF files and from the checkpoint is the same."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from gemma_model.checkpoint import open_checkpoint
from gemma_model.engine import create_engine
from gemma_model.engine_types import EngineOutput
from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_wire import Options, Request
from gemma_wire.messages import Message

from ..media_files import encode

pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
write_gguf = pytest.importorskip("gemma_model.testing.gguf_writer").write_gguf
write_mmproj = pytest.importorskip("gemma_model.testing.mmproj_writer").write_mmproj

ROOT = Path(__file__).parents[4]
NANO = ROOT / "models" / "gemma3n-nano"
BEEPS = ROOT / "playground" / "src" / "gemma_playground" / "examples" / "beeps.wav"
TEXT_VOCABULARY = 2048
pytestmark = pytest.mark.skipif(not NANO.is_dir(), reason="there is no models/gemma3n-nano")


def texts(folder: Path) -> list[str]:
    """Responses to a question about an image, and to one about audio."""
    settings = Settings(max_num_seqs=1, max_model_len=512, compile="off", device="cpu", model_name="nano")
    processor, engine = RequestProcessor(open_checkpoint(folder), settings), create_engine(folder, settings)
    image = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(image).ellipse((40, 40, 260, 260), fill=(40, 80, 220))
    questions: list[tuple[str, str, dict[str, Any]]] = [
        ("image", "What do you see in this image?", {"images": (encode(image),)}),
        ("audio", "What do you hear?", {"audio": (BEEPS.read_bytes(),)}),
    ]
    found = []
    try:
        for kind, question, media in questions:
            content = [{"type": "text", "text": question}, {"type": kind}]
            message = Message.model_validate({"role": "user", "content": content})
            request = Request(messages=(message,), temperature=0.0, max_tokens=30, **media)
            steps, ended = list[EngineOutput](), threading.Event()

            def listen(step: EngineOutput, steps: Any = steps, ended: Any = ended) -> None:
                steps.append(step)
                if step.last:
                    ended.set()

            engine.submit(processor.process(request).engine_request, listen)
            assert ended.wait(60)
            ids = tuple(token for step in steps for token in step.token_ids)
            options = Options(op="detokenize", prompt_token_ids=ids)
            found.append(processor.tokens(Request(options=options)).text)
    finally:
        engine.close()
        processor.close()
    return found


def test_text_for_an_image_and_audio(tmp_path: Path) -> None:
    write_mmproj(NANO, tmp_path / "mmproj-BF16.gguf")
    shutil.copy(NANO / "processor_config.json", tmp_path)
    expected = texts(NANO)
    assert "blue circle" in expected[0]
    assert "three beeps" in expected[1]
    for name, vocabulary in (("complete", None), ("cut", TEXT_VOCABULARY)):
        file = write_gguf(NANO, tmp_path / f"{name}.gguf", "BF16", vocabulary=vocabulary)
        assert texts(prepare_folder(file, tmp_path / "cache")) == expected
