"""What a request may ask that has no tensor of its own."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt

from gemma_wire.messages import MAX_TOOLS, Frozen, Tool

INT32_MAX = 2**31 - 1
SEED_MIN, SEED_MAX = -(2**63), 2**63 - 1
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_LOGPROB_TOKEN_IDS = 128
MAX_STOPS = 16
LEAST_REPETITION_PENALTY, MOST_REPETITION_PENALTY = 0.01, 10.0
"""Logits are at most some hundreds: divided or multiplied by these they stay far inside fp32's range."""
MAX_BIASES = 1024
MAX_CACHE_SALT = 512
"""Characters of a ``cache_salt``."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[StrictInt, BeforeValidator(_whole)]
"""An integer, which JSON may write as ``5.0``; no boolean, and no text."""
TokenId = Annotated[Whole, Field(ge=0, le=INT32_MAX)]


def _none_for_false(value: object) -> object:
    return None if value is False else value


class JsonGrammar(Frozen):
    """The answer is JSON that fits a schema; ``True`` is the schema that everything fits.

    Args:
        json_schema: ``{"type": "object"}`` is any object.
        strict: refuse a schema that cannot be enforced entirely, and close its objects; otherwise keywords
            that cannot be enforced are left out, and named in the first chunk.
    """

    type: Literal["json"] = "json"
    json_schema: dict[str, Any] | StrictBool
    strict: StrictBool = False


class RegexGrammar(Frozen):
    """The whole answer matches a regular expression."""

    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)


class ChoiceGrammar(Frozen):
    """The answer is one of these."""

    type: Literal["choice"] = "choice"
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)


class LarkGrammar(Frozen):
    """The answer is what a context-free grammar in Lark's notation derives from ``start``."""

    type: Literal["lark"] = "lark"
    text: str = Field(min_length=1)


Grammar = Annotated[
    JsonGrammar | RegexGrammar | ChoiceGrammar | LarkGrammar,
    Field(discriminator="type"),
]


class SamplingParams(Frozen):
    """How the next token is chosen, besides ``temperature`` and ``top_p``, which have tensors of their own.

    Each parameter is declared here, once, with its type, bounds and default. The gateway's request schema has
    a field of the same name, which is passed on unchanged; the model's sampler reads it from here.

    Args:
        seed: equal seeds give equal tokens; ``None`` draws one.
        top_k: 0 keeps every token; ``None``: the checkpoint's own.
        min_p: keep tokens whose probability is at least this fraction of the most likely token's.
        repetition_penalty: over prompt and answer; 1 is none (Keskar et al. 2019, arXiv:1909.05858).
        frequency_penalty, presence_penalty: over the answer, as OpenAI defines them.
        logit_bias: token id → what is added to its logit.
    """

    seed: Whole | None = Field(None, ge=SEED_MIN, le=SEED_MAX)
    top_k: Whole | None = Field(None, ge=0, le=INT32_MAX, description="0 keeps every token")
    min_p: StrictFloat = Field(0.0, ge=0, le=1)
    repetition_penalty: StrictFloat = Field(1.0, ge=LEAST_REPETITION_PENALTY, le=MOST_REPETITION_PENALTY)
    frequency_penalty: StrictFloat = Field(0.0, ge=-2, le=2)
    presence_penalty: StrictFloat = Field(0.0, ge=-2, le=2)
    logit_bias: dict[
        Annotated[int, Field(ge=0, le=INT32_MAX)], Annotated[StrictFloat, Field(ge=-100, le=100)]
    ] = Field(default_factory=dict, max_length=MAX_BIASES)


class Options(SamplingParams):
    """What has no tensor of its own; ``None`` leaves the choice to the model.

    Args:
        op: what is wanted; everything but ``generate`` is answered at once, by one response.
        model: which of the models that the server holds; the first when ``None``.
        prompt_token_ids: a prompt that is tokenised already; with ``op=detokenize`` what is to become text.
        n: how many answers to one prompt.
        cache_salt: what was computed for other requests is reused only if they had the same salt, or none
            either. Nobody can tell from the counts or the time of an answer what others have asked.
        logprobs: tell each new token's log probability, and those of so many of the likeliest.
        prompt_logprobs: tell each token's of the prompt, and those of so many of the likeliest.
        logprob_token_ids: tell the log probabilities of these tokens instead of the likeliest, at each new
            token; needs ``logprobs``.
        return_token_ids: tell the ids of the prompt's and the new tokens.
        continuous_usage_stats: tell the token counts so far with each piece.
        skip_special_tokens: leave control tokens out of the text; false writes their names.
        add_generation_prompt: the prompt of a conversation ends where the model's turn begins.
        continue_final_message: the answer goes on with the last message, which is the assistant's.
        grammar: the answer is derived from it, whatever the model would like.
        tools: those that may be called.
        tool_choice: whether one must be called.
        parallel_tool_calls: whether an answer may hold several calls.
    """

    op: Literal["generate", "describe", "tokenize", "detokenize", "tokenizer_info"] = "generate"
    model: str | None = None
    prompt_token_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)] | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=MAX_STOPS)
    stop_token_ids: tuple[TokenId, ...] = Field((), max_length=256)
    min_tokens: Whole = Field(0, ge=0, le=INT32_MAX)
    ignore_eos: StrictBool = False
    n: Whole = Field(1, ge=1, le=MAX_CHOICES)
    logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    prompt_logprobs: Annotated[Whole | None, BeforeValidator(_none_for_false)] = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS
    )
    logprob_token_ids: tuple[TokenId, ...] = Field((), max_length=MAX_LOGPROB_TOKEN_IDS)
    cache_salt: str | None = Field(None, max_length=MAX_CACHE_SALT)
    return_token_ids: StrictBool = False
    continuous_usage_stats: StrictBool = False
    skip_special_tokens: StrictBool = True
    add_generation_prompt: StrictBool = True
    continue_final_message: StrictBool = False
    grammar: Grammar | None = None
    tools: tuple[Tool, ...] = Field((), max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "required"] = "auto"
    parallel_tool_calls: StrictBool = True
