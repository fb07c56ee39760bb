"""How messages become the prompt; the names are those of vLLM and transformers."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from gemma_gateway.schema.extensions import REASONING, ReasoningParams
from gemma_gateway.schema.messages import AssistantMessage, ChatMessage
from gemma_gateway.schema.strict_model import StrictModel, Unsupported, conflict


class ChatTemplateKwargs(ReasoningParams):
    """Variables of the chat template. Gemma's template reads only those that are parameters, too."""

    add_generation_prompt: bool | None = Field(None, description="the same as the parameter of that name")
    continue_final_message: bool | None = Field(None, description="the same as the parameter of that name")
    preserve_thinking: Annotated[Any, REASONING] = None
    clear_thinking: Annotated[Any, REASONING] = None


class ChatTemplateParams(StrictModel):
    """Parameters for the end of the prompt."""

    add_generation_prompt: bool | None = Field(
        None, description="default true; false: the prompt ends after the last message"
    )
    continue_final_message: bool | None = Field(
        None, description="the response continues the last message, which is the assistant's"
    )
    chat_template_kwargs: ChatTemplateKwargs | None = None
    chat_template: Annotated[Any, Unsupported(hint="the model's own is used")] = None

    def check_turns(self, messages: Sequence[ChatMessage] | None) -> None:
        """Checks the combination of the parameters and the last message.

        Raises:
            PydanticCustomError: names the parameter that is wrong.
        """
        for name in ("add_generation_prompt", "continue_final_message"):
            inner, own = getattr(self.chat_template_kwargs, name, None), getattr(self, name)
            if None not in (inner, own) and inner != own:
                raise conflict(f"chat_template_kwargs.{name}", f"differs from '{name}'; give one of them")
        if not self.continues:
            return
        if self._either("add_generation_prompt"):
            raise conflict("continue_final_message", "and 'add_generation_prompt' cannot both be true")
        if not messages or not isinstance(messages[-1], AssistantMessage) or messages[-1].tool_calls:
            raise conflict("continue_final_message", "needs a last message with the role 'assistant'")

    @property
    def continues(self) -> bool:
        """Whether the response continues the last message."""
        return bool(self._either("continue_final_message"))

    @property
    def begins_turn(self) -> bool:
        """Whether the prompt ends with the start of the model's turn."""
        return not self.continues and self._either("add_generation_prompt") is not False

    def _either(self, name: str) -> bool | None:
        own: bool | None = getattr(self, name)
        inner: bool | None = getattr(self.chat_template_kwargs, name, None)
        return inner if own is None else own
