"""A completion request as calls to the engine: one for each prompt."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

import gemma_wire as wire
from gemma_gateway.engine_client import EngineClient
from gemma_gateway.generation import EngineCall, fetch_tokens, option_fields, request_fields, to_grammar
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.worker_thread import in_thread

_LARGE: Final = 4096
"""Prompt tokens that are validated in about a millisecond; more are validated in a thread."""


@dataclass(frozen=True)
class CompletionPrompt:
    """One prompt of a request.

    Args:
        call: what the engine is to do.
        echo: the prompt as text, which the response begins with; ``None`` if it is not echoed.
        first: the name of the prompt's first token, if the client gave tokens and wants an echo.
        shows_first: whether ``echo`` contains the first token; the BOS token is not part of the text.
    """

    call: EngineCall
    echo: str | None = None
    first: str | None = None
    shows_first: bool = True


async def parse(body: CompletionRequest, engine: EngineClient, model: str | None) -> list[CompletionPrompt]:
    """The prompts of a request, each with its call to the engine.

    Args:
        body: the request.
        engine: detokenizes the client's tokens if they are to be echoed.
        model: value of ``wire.Options.model``.

    Raises:
        ApiError: the token ids are not in the model's vocabulary.
    """
    work = partial(_calls, body, model)
    tokens = sum(len(given) for given in body.prompts if isinstance(given, list))
    calls = await in_thread(work) if tokens > _LARGE else work()
    return await asyncio.gather(*(_prompt(body, engine, call) for call in calls))


def _calls(body: CompletionRequest, model: str | None) -> list[EngineCall]:
    params = [f"prompt[{i}]" for i in range(len(body.prompts))] if body.is_batch else ["prompt"]
    return [_call(body, model, given, param) for given, param in zip(body.prompts, params, strict=True)]


async def _prompt(body: CompletionRequest, engine: EngineClient, call: EngineCall) -> CompletionPrompt:
    text, options = call.request.prompt, call.request.options
    if not body.echo:
        return CompletionPrompt(call)
    if text is not None:
        return CompletionPrompt(call, echo=text)
    detokenize = wire.Options.model_construct(
        op="detokenize", model=options.model, prompt_token_ids=options.prompt_token_ids
    )
    request = wire.Request(options=detokenize)
    tokens = await fetch_tokens(engine, EngineCall(request, call.param_names, call.prompt_param))
    first = tokens.pieces[0]
    echo = tokens.text.removeprefix(first) if tokens.begins else tokens.text
    return CompletionPrompt(call, echo=echo, first=first, shows_first=not tokens.begins)


def _call(body: CompletionRequest, model: str | None, given: str | list[int], param: str) -> EngineCall:
    grammar, grammar_names = to_grammar(body)
    request = wire.Request(
        prompt=given if isinstance(given, str) else None,
        max_tokens=max(body.limit, 1),  # the engine generates at least one token; the response omits it
        **request_fields(body),
        options=wire.Options(
            **option_fields(body) | {"return_token_ids": body.needs_prompt_ids},
            model=model,
            prompt_token_ids=None if isinstance(given, str) else tuple(given),
            n=body.candidates,
            logprobs=_logprobs(body),
            prompt_logprobs=_prompt_logprobs(body),
            grammar=grammar,
        ),
    )
    names = {"prompt": param, "prompt_token_ids": param, "images": param, "prompt_logprobs": "echo"}
    names |= {} if body.prompt_logprobs is None else {"prompt_logprobs": "prompt_logprobs"}
    names |= {"n": "best_of"} if body.candidates > body.choices else {}
    return EngineCall(request, names | grammar_names, param)


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    """The number of alternatives per prompt token: enough for ``prompt_logprobs`` and for ``echo``."""
    requested = [body.prompt_logprobs, body.logprobs if body.echo else None]
    return max((count for count in requested if count is not None), default=None)


def _logprobs(body: CompletionRequest) -> int | None:
    """Candidates are ranked by log probability, so ``best_of`` needs it even if the client does not."""
    ranked = 0 if body.candidates > body.choices else None
    return ranked if body.logprobs is None else body.logprobs
