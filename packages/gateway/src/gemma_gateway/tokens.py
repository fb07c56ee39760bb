"""``/tokenize`` and ``/detokenize``: the model's tokens, for clients that count or cut."""

import gemma_wire as wire
from gemma_gateway.asking import Question, ask_tokens
from gemma_gateway.chat.question import as_tool, converse, tool_params
from gemma_gateway.engine import Engine
from gemma_gateway.schema.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from gemma_gateway.settings import Settings


async def tokenize(
    body: TokenizeRequest, engine: Engine, settings: Settings, model: str | None
) -> TokenizeResponse:
    """The tokens of a prompt or a conversation.

    Raises:
        ApiError: the model cannot read it.
    """
    tokens = await ask_tokens(engine, await _question(body, settings, model))
    ids, pieces = list(tokens.token_ids), list(tokens.pieces)
    bare = body.prompt is not None and body.add_special_tokens is False
    if bare and pieces and not (body.prompt or "").startswith(pieces[0]):  # it is the model's own
        del ids[0], pieces[0]
    return TokenizeResponse(
        count=len(ids),
        max_model_len=tokens.context_length,
        tokens=ids,
        token_strs=pieces if body.return_token_strs else None,
    )


async def detokenize(body: DetokenizeRequest, engine: Engine, model: str | None) -> DetokenizeResponse:
    """The text that tokens stand for.

    Raises:
        ApiError: they are none of the model's.
    """
    if not body.tokens:
        return DetokenizeResponse(prompt="")
    options = wire.Options(op="detokenize", model=model, prompt_token_ids=tuple(body.tokens))
    question = Question(wire.Request(options=options), {"prompt_token_ids": "tokens"}, "tokens")
    return DetokenizeResponse(prompt=(await ask_tokens(engine, question)).text)


async def _question(body: TokenizeRequest, settings: Settings, model: str | None) -> Question:
    if body.messages is None:
        options = wire.Options(op="tokenize", model=model)
        return Question(wire.Request(prompt=body.prompt, options=options), {"images": "prompt"}, "prompt")
    said = await converse(body.messages, settings)
    tools = body.tools or []
    options = wire.Options(
        op="tokenize",
        model=model,
        tools=tuple(map(as_tool, tools)),
        add_generation_prompt=body.begins_turn,
        continue_final_message=body.continues,
    )
    request = wire.Request(messages=said.messages, images=said.images, audio=said.audio, options=options)
    return Question(request, said.params | tool_params(range(len(tools))))
