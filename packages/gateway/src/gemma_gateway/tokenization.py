"""``/tokenize`` and ``/detokenize``: the model's tokens, for clients that count or truncate."""

import gemma_wire as wire
from gemma_gateway.chat.request import convert_messages, tool_param_names
from gemma_gateway.engine_client import EngineClient
from gemma_gateway.generation import EngineCall, fetch_tokens, to_wire_tool
from gemma_gateway.schema.tokenize import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from gemma_gateway.settings import GatewaySettings


async def tokenize(
    body: TokenizeRequest, engine: EngineClient, settings: GatewaySettings, model: str | None
) -> TokenizeResponse:
    """The tokens of a prompt or a conversation.

    Raises:
        ApiError: the model cannot tokenize it.
    """
    tokens = await fetch_tokens(engine, await _call(body, settings, model))
    ids, pieces = list(tokens.token_ids), list(tokens.pieces)
    without_bos = body.prompt is not None and body.add_special_tokens is False
    if without_bos and pieces and not (body.prompt or "").startswith(pieces[0]):  # the model added it
        del ids[0], pieces[0]
    return TokenizeResponse(
        count=len(ids),
        max_model_len=tokens.context_length,
        tokens=ids,
        token_strs=pieces if body.return_token_strs else None,
    )


async def detokenize(body: DetokenizeRequest, engine: EngineClient, model: str | None) -> DetokenizeResponse:
    """The text of tokens.

    Raises:
        ApiError: the token ids are not in the model's vocabulary.
    """
    if not body.tokens:
        return DetokenizeResponse(prompt="")
    options = wire.Options(op="detokenize", model=model, prompt_token_ids=tuple(body.tokens))
    call = EngineCall(wire.Request(options=options), {"prompt_token_ids": "tokens"}, "tokens")
    return DetokenizeResponse(prompt=(await fetch_tokens(engine, call)).text)


async def _call(body: TokenizeRequest, settings: GatewaySettings, model: str | None) -> EngineCall:
    if body.messages is None:
        options = wire.Options(op="tokenize", model=model)
        return EngineCall(wire.Request(prompt=body.prompt, options=options), {"images": "prompt"}, "prompt")
    conversation = await convert_messages(body.messages, settings)
    tools = body.tools or []
    options = wire.Options(
        op="tokenize",
        model=model,
        tools=tuple(to_wire_tool(tool.definition) for tool in tools),
        add_generation_prompt=body.begins_turn,
        continue_final_message=body.continues,
    )
    request = wire.Request(
        messages=conversation.messages,
        images=conversation.images,
        audio=conversation.audio,
        options=options,
    )
    return EngineCall(request, conversation.param_names | tool_param_names(tools, range(len(tools))))
