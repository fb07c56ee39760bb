"""Reports about JSON schemas: which keywords are not enforced, and whether the result is valid."""

from dataclasses import dataclass
from typing import Final

from gemma_wire import Chunk

UNENFORCED: Final = "x-unenforced-keywords"
VALID: Final = "x-schema-valid"


@dataclass
class JsonSchemaReport:
    """Collected from the engine's chunks.

    Args:
        unenforced: keywords of the request's schemas that are not enforced; known with the first chunk.
        valid: whether the generated JSON is valid; known with the last chunk. ``None`` if the schema is
            enforced completely.
    """

    unenforced: tuple[str, ...] = ()
    valid: bool | None = None

    def update(self, chunk: Chunk) -> None:
        """Takes in a chunk. With several prompts, every result must be valid."""
        self.unenforced = self.unenforced or chunk.unenforced
        if chunk.schema_valid is not None:
            self.valid = chunk.schema_valid and self.valid is not False

    @property
    def headers(self) -> dict[str, str]:
        """Response headers, as far as their values are known."""
        headers = {UNENFORCED: ", ".join(self.unenforced)} if self.unenforced else {}
        return headers if self.valid is None else {**headers, VALID: str(self.valid).lower()}
