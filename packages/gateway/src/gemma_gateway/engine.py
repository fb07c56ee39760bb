"""What the gateway needs from whatever runs the model: typed chunks, never SSE text."""

from collections.abc import AsyncGenerator
from typing import Protocol

from gemma_wire import Chunk, ModelInfo, Request, TokenizerInfo, Tokens


class Engine(Protocol):
    """Answers requests. Every method raises a ``gemma_wire.WireError``, and nothing else, when it cannot."""

    def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """The answer, piece by piece; the last chunk carries ``usage``.

        Closing the generator, at any point, cancels the generation at once.
        """

    async def tokens(self, request: Request) -> Tokens:
        """The answer to ``op=tokenize`` and ``op=detokenize``."""

    async def describe(self) -> ModelInfo:
        """What is served now; asks the model itself, so it tells whether the model can answer."""

    async def tokenizer_info(self) -> TokenizerInfo:
        """How the model's tokenizer is configured, its chat template included."""

    async def close(self) -> None:
        """Drop every connection."""
