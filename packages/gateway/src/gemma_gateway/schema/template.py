"""How the messages of a conversation become the prompt; named as vLLM and transformers name it."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from gemma_gateway.schema.base import Only, Strict, clash
from gemma_gateway.schema.extensions import REASONING, Reasoning
from gemma_gateway.schema.messages import AssistantMessage, Message


class TemplateOptions(Reasoning):
    """Variables of the chat template. Gemma's reads none but those that have parameters of their own."""

    add_generation_prompt: bool | None = Field(None, description="the same as the parameter of that name")
    continue_final_message: bool | None = Field(None, description="the same as the parameter of that name")
    preserve_thinking: Annotated[Any, REASONING] = None
    clear_thinking: Annotated[Any, REASONING] = None


class Templated(Strict):
    """The end of the prompt: whose turn it is."""

    add_generation_prompt: bool | None = Field(
        None, description="true when not given; false: the prompt ends behind the last message"
    )
    continue_final_message: bool | None = Field(
        None, description="the answer goes on with the last message, which is the assistant's"
    )
    chat_template_kwargs: TemplateOptions | None = None
    chat_template: Annotated[Any, Only(hint="the model's own is used")] = None

    def check_turns(self, messages: Sequence[Message] | None) -> None:
        """What is said about the end of the prompt must fit together.

        Raises:
            PydanticCustomError: naming the parameter that does not.
        """
        for name in ("add_generation_prompt", "continue_final_message"):
            inner, own = getattr(self.chat_template_kwargs, name, None), getattr(self, name)
            if None not in (inner, own) and inner != own:
                raise clash(f"chat_template_kwargs.{name}", f"differs from '{name}'; give one of them")
        if not self.continues:
            return
        if self._either("add_generation_prompt"):
            raise clash("continue_final_message", "and 'add_generation_prompt' cannot both be true")
        if not messages or not isinstance(messages[-1], AssistantMessage) or messages[-1].tool_calls:
            raise clash("continue_final_message", "needs a last message of the role 'assistant'")

    @property
    def continues(self) -> bool:
        """Whether the answer goes on with the last message."""
        return bool(self._either("continue_final_message"))

    @property
    def begins_turn(self) -> bool:
        """Whether the prompt ends with the beginning of the model's turn."""
        return not self.continues and self._either("add_generation_prompt") is not False

    def _either(self, name: str) -> bool | None:
        own: bool | None = getattr(self, name)
        inner: bool | None = getattr(self.chat_template_kwargs, name, None)
        return inner if own is None else own
