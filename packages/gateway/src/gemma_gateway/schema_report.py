"""What a client is told about its JSON schemas: what is not enforced, and whether the answer fits."""

from dataclasses import dataclass
from typing import Final

from gemma_wire import Chunk

UNENFORCED: Final = "x-unenforced-keywords"
VALID: Final = "x-schema-valid"


@dataclass
class SchemaReport:
    """Gathered from the model's chunks.

    Args:
        unenforced: keywords of the request's schemas; known with the first chunk.
        valid: whether the answer fits them; known with the last chunk, ``None`` where all is enforced.
    """

    unenforced: tuple[str, ...] = ()
    valid: bool | None = None

    def note(self, chunk: Chunk) -> None:
        """Take in what a chunk says; of several prompts each must fit."""
        self.unenforced = self.unenforced or chunk.unenforced
        if chunk.schema_valid is not None:
            self.valid = chunk.schema_valid and self.valid is not False

    @property
    def headers(self) -> dict[str, str]:
        """Of the response, as far as is known."""
        told = {UNENFORCED: ", ".join(self.unenforced)} if self.unenforced else {}
        return told if self.valid is None else {**told, VALID: str(self.valid).lower()}

    @property
    def comment(self) -> bytes:
        """The last word of a stream, whose headers were sent before the answer was known."""
        return (
            b""
            if self.valid is None
            else b": %b: %b\n\n" % (VALID.encode(), str(self.valid).lower().encode())
        )
