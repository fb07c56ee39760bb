"""A completion request as the questions that the model is asked: one for each prompt."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

import gemma_wire as wire
from gemma_gateway.asking import Question, ask_tokens, options, sampling, structured
from gemma_gateway.engine import Engine
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.threads import in_thread

_MANY: Final = 4096
"""Tokens that are checked in about a millisecond; more are checked in a thread."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a request.

    Args:
        question: what the model is asked.
        echo: the prompt as text, which the answer begins with; ``None`` where it is not told.
        first: the name of the prompt's first token, where the client gave tokens and wants to see them.
        shows_first: whether ``echo`` begins with it; the token that begins every text is none of its text.
    """

    question: Question
    echo: str | None = None
    first: str | None = None
    shows_first: bool = True


async def read(body: CompletionRequest, engine: Engine, model: str | None) -> list[Prompt]:
    """The prompts of a request.

    Args:
        body: the request.
        engine: tells what text the client's tokens stand for, where they are to be told.
        model: which of the served models, as ``wire.Options`` wants it.

    Raises:
        ApiError: the tokens are none of the model's.
    """
    work = partial(_questions, body, model)
    tokens = sum(len(given) for given in body.prompts if isinstance(given, list))
    questions = await in_thread(work) if tokens > _MANY else work()
    return await asyncio.gather(*(_prompt(body, engine, question) for question in questions))


def _questions(body: CompletionRequest, model: str | None) -> list[Question]:
    params = [f"prompt[{i}]" for i in range(len(body.prompts))] if body.is_batch else ["prompt"]
    return [_question(body, model, given, param) for given, param in zip(body.prompts, params, strict=True)]


async def _prompt(body: CompletionRequest, engine: Engine, question: Question) -> Prompt:
    given, asked = question.request.prompt, question.request.options
    if not body.echo:
        return Prompt(question)
    if given is not None:
        return Prompt(question, echo=given)
    lookup_options = wire.Options.model_construct(
        op="detokenize", model=asked.model, prompt_token_ids=asked.prompt_token_ids
    )
    lookup = wire.Request(options=lookup_options)
    tokens = await ask_tokens(engine, Question(lookup, question.params, question.prompt))
    first = tokens.pieces[0]
    echo = tokens.text.removeprefix(first) if tokens.begins else tokens.text
    return Prompt(question, echo=echo, first=first, shows_first=not tokens.begins)


def _question(body: CompletionRequest, model: str | None, given: str | list[int], param: str) -> Question:
    grammar, grammar_back = structured(body)
    request = wire.Request(
        prompt=given if isinstance(given, str) else None,
        max_tokens=max(body.limit, 1),  # to score a prompt takes one token too, which is then not told
        **sampling(body),
        options=wire.Options(
            **options(body) | {"return_token_ids": body.tells_prompt_ids},
            model=model,
            prompt_token_ids=None if isinstance(given, str) else tuple(given),
            n=body.candidates,
            logprobs=_logprobs(body),
            prompt_logprobs=_prompt_logprobs(body),
            grammar=grammar,
        ),
    )
    params = {"prompt": param, "prompt_token_ids": param, "images": param, "prompt_logprobs": "echo"}
    params |= {} if body.prompt_logprobs is None else {"prompt_logprobs": "prompt_logprobs"}
    params |= {"n": "best_of"} if body.candidates > body.choices else {}
    return Question(request, params | grammar_back, param)


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    """The likeliest at each token of the prompt: enough for both who want them."""
    asked = [body.prompt_logprobs, body.logprobs if body.echo else None]
    return max((count for count in asked if count is not None), default=None)


def _logprobs(body: CompletionRequest) -> int | None:
    """To tell the best candidates takes log probabilities, whether the client wants to see them or not."""
    ranked = 0 if body.candidates > body.choices else None
    return ranked if body.logprobs is None else body.logprobs
