"""``structured_outputs`` and vLLM's older names for it, ``guided_…``."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import from_json

from gemma_gateway.schema.strict_model import StrictModel, Unsupported, conflict
from gemma_gateway.schema.tools import StructuredOutputs

MAX_SCHEMA_TEXT = 2**20
"""Characters of a JSON schema that is given as text."""


def _parsed(value: object) -> object:
    """A JSON schema may also be given as text."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_SCHEMA_TEXT:
        raise conflict("", f"has more than {MAX_SCHEMA_TEXT:,} characters", "string_above_max_length")
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise conflict("", f"is not valid JSON: {error}", "invalid_json") from None


class StructuredOutputParams(StrictModel):
    """The required format of the generated text, in one of vLLM's two spellings."""

    structured_outputs: StructuredOutputs | None = None
    guided_json: Annotated[dict[str, Any] | None, BeforeValidator(_parsed)] = Field(
        None, description="the same as `structured_outputs.json`, as an object or as text"
    )
    guided_regex: str | None = Field(None, description="the same as `structured_outputs.regex`")
    guided_choice: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, description="the same as `structured_outputs.choice`"
    )
    guided_grammar: str | None = Field(None, description="the same as `structured_outputs.grammar`")
    guided_whitespace_pattern: Annotated[Any, Unsupported(hint="JSON is generated without whitespace")] = None

    @model_validator(mode="after")
    def _check_one_form(self) -> Self:
        if len(names := [name for name, _, _ in self.forms]) > 1:
            raise conflict(names[1], f"and '{names[0]}' are alternatives; give one of them")
        return self

    @property
    def forms(self) -> list[tuple[str, str, Any]]:
        """The requested forms: parameter, kind as ``StructuredOutputs`` names it, and value of each."""
        inner: list[tuple[str, Any]] = list(self.structured_outputs or ())
        older: list[tuple[str, Any]] = [("json", self.guided_json), ("regex", self.guided_regex)]
        older += [("choice", self.guided_choice), ("grammar", self.guided_grammar)]
        given = [(f"structured_outputs.{kind.strip('_')}", kind.strip("_"), value) for kind, value in inner]
        given += [(f"guided_{kind}", kind, value) for kind, value in older if value not in ("", [])]
        return [form for form in given if form[2] is not None]
