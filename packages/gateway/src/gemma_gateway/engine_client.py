"""The interface between the gateway and whatever runs the model: typed chunks, never SSE text."""

from collections.abc import AsyncGenerator
from typing import Protocol

from gemma_wire import Chunk, ModelInfo, Request, TokenizerInfo, Tokens


class EngineClient(Protocol):
    """Sends requests to the engine. Every method raises only ``gemma_wire.WireError``."""

    def generate(self, request: Request, request_id: str) -> AsyncGenerator[Chunk, None]:
        """The chunks of the response; the last chunk has ``usage``.

        Closing the generator, at any point, cancels the generation at once.
        """

    async def tokens(self, request: Request) -> Tokens:
        """The result of ``op=tokenize`` and ``op=detokenize``."""

    async def describe(self) -> ModelInfo:
        """What is served now. The model itself responds, so this is also a health check."""

    async def tokenizer_info(self) -> TokenizerInfo:
        """The configuration of the model's tokenizer, with its chat template."""

    async def close(self) -> None:
        """Close all connections."""
