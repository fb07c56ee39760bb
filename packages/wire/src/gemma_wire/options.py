"""The options of a request that have no tensors of their own: sampling parameters, grammars, tools, …."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt

from gemma_wire.messages import MAX_TOOLS, Tool, WireModel

INT32_MAX = 2**31 - 1
SEED_MIN, SEED_MAX = -(2**63), 2**63 - 1
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_LOGPROB_TOKEN_IDS = 128
MAX_STOPS = 16
LEAST_REPETITION_PENALTY, MOST_REPETITION_PENALTY = 0.01, 10.0
"""Logits are at most some hundreds: multiplied or divided by these they stay within fp32's range."""
MAX_BIASES = 1024
MIN_SUBSCRIPTION, MAX_SUBSCRIPTION = 16, 64
"""Characters of a subscription's name: nobody shall find one by guessing."""
MAX_CACHE_SALT = 512
"""Characters of a ``cache_salt``."""


def _as_integer(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


JsonInt = Annotated[StrictInt, BeforeValidator(_as_integer)]
"""An integer, which may be written as ``5.0``; not a boolean or a string."""
TokenId = Annotated[JsonInt, Field(ge=0, le=INT32_MAX)]


def _none_for_false(value: object) -> object:
    return None if value is False else value


class JsonGrammar(WireModel):
    """The generated text is JSON that is valid for a schema; the schema ``True`` allows any JSON.

    Args:
        json_schema: ``{"type": "object"}`` is any object.
        strict: refuse a schema that cannot be enforced completely, and allow no additional properties.
            Otherwise keywords that cannot be enforced are ignored, and named in the first chunk.
    """

    type: Literal["json"] = "json"
    json_schema: dict[str, Any] | StrictBool
    strict: StrictBool = False


class RegexGrammar(WireModel):
    """The complete generated text matches a regular expression."""

    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)


class ChoiceGrammar(WireModel):
    """The generated text is one of these."""

    type: Literal["choice"] = "choice"
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)


class LarkGrammar(WireModel):
    """The generated text is derived from ``start`` by a context-free grammar in Lark's notation."""

    type: Literal["lark"] = "lark"
    text: str = Field(min_length=1)


Grammar = Annotated[
    JsonGrammar | RegexGrammar | ChoiceGrammar | LarkGrammar,
    Field(discriminator="type"),
]


class SamplingParams(WireModel):
    """How the next token is chosen, besides ``temperature`` and ``top_p``, which have tensors of their own.

    Each parameter is declared here, once, with its type, bounds and default. The gateway's request schema has
    a field of the same name, which is passed on unchanged; the model's sampler reads it from here.

    Args:
        seed: equal seeds give equal tokens; ``None`` draws one.
        top_k: 0 keeps every token; ``None``: the checkpoint's own.
        min_p: keep tokens whose probability is at least this fraction of the most likely token's.
        repetition_penalty: for tokens of prompt and output; 1: none (Keskar et al. 2019, arXiv:1909.05858).
        frequency_penalty, presence_penalty: for tokens of the output, as OpenAI defines them.
        logit_bias: token id → what is added to its logit.
    """

    seed: JsonInt | None = Field(None, ge=SEED_MIN, le=SEED_MAX)
    top_k: JsonInt | None = Field(None, ge=0, le=INT32_MAX, description="0 keeps every token")
    min_p: StrictFloat = Field(0.0, ge=0, le=1)
    repetition_penalty: StrictFloat = Field(1.0, ge=LEAST_REPETITION_PENALTY, le=MOST_REPETITION_PENALTY)
    frequency_penalty: StrictFloat = Field(0.0, ge=-2, le=2)
    presence_penalty: StrictFloat = Field(0.0, ge=-2, le=2)
    logit_bias: dict[
        Annotated[int, Field(ge=0, le=INT32_MAX)], Annotated[StrictFloat, Field(ge=-100, le=100)]
    ] = Field(default_factory=dict, max_length=MAX_BIASES)


class Options(SamplingParams):
    """The options that have no tensors of their own. ``None`` means the model's default.

    Args:
        op: the operation. Every operation but ``generate`` and ``subscribe`` has one response, at once.
        model: one of the models that the server holds; ``None``: the main model.
        prompt_token_ids: a tokenized prompt; with ``op=detokenize`` the tokens to convert to text.
        stop: the generated text ends before any of these strings.
        stop_token_ids: generation ends after any of these tokens.
        min_tokens: no end before this number of new tokens.
        ignore_eos: do not end at the checkpoint's end tokens.
        n: the number of choices for the prompt.
        logprobs: report the log probability of each new token and of this number of most likely tokens.
        prompt_logprobs: the same for each token of the prompt.
        logprob_token_ids: with ``logprobs``: report these tokens instead of the most likely ones.
        cache_salt: only requests with the same salt share the prefix cache, so that the time and the token
            counts of a response reveal nothing about other clients' requests.
        prediction: a text that the generated one is expected to be similar to. If it is, the response is
            faster; nothing else changes.
        return_token_ids: report the ids of the prompt's and of the new tokens.
        continuous_usage_stats: report the token counts so far with each chunk.
        skip_special_tokens: omit control tokens from the text; false writes them out.
        add_generation_prompt: the prompt of a conversation ends with the start of the model's turn.
        continue_final_message: the generated text continues the last message, which is the assistant's.
        grammar: constrains the generated text.
        tools: the tools that the model may call.
        tool_choice: whether the model must call a tool.
        parallel_tool_calls: whether there may be several tool calls.
        subscription: with ``op=subscribe``, the name of the subscription, whose responses are the chunks of
            all requests that name it; with ``op=generate``, one that receives all chunks but the last while
            it is open.
        receiver: what the request is called in the responses of its subscription.
    """

    op: Literal["generate", "describe", "tokenize", "detokenize", "tokenizer_info", "subscribe"] = "generate"
    model: str | None = None
    prompt_token_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)] | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=MAX_STOPS)
    stop_token_ids: tuple[TokenId, ...] = Field((), max_length=256)
    min_tokens: JsonInt = Field(0, ge=0, le=INT32_MAX)
    ignore_eos: StrictBool = False
    n: JsonInt = Field(1, ge=1, le=MAX_CHOICES)
    logprobs: JsonInt | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    prompt_logprobs: Annotated[JsonInt | None, BeforeValidator(_none_for_false)] = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS
    )
    logprob_token_ids: tuple[TokenId, ...] = Field((), max_length=MAX_LOGPROB_TOKEN_IDS)
    cache_salt: str | None = Field(None, max_length=MAX_CACHE_SALT)
    prediction: str | None = None
    return_token_ids: StrictBool = False
    continuous_usage_stats: StrictBool = False
    skip_special_tokens: StrictBool = True
    add_generation_prompt: StrictBool = True
    continue_final_message: StrictBool = False
    grammar: Grammar | None = None
    tools: tuple[Tool, ...] = Field((), max_length=MAX_TOOLS)
    tool_choice: Literal["auto", "required"] = "auto"
    parallel_tool_calls: StrictBool = True
    subscription: str | None = Field(None, min_length=MIN_SUBSCRIPTION, max_length=MAX_SUBSCRIPTION)
    receiver: JsonInt = Field(0, ge=0, le=INT32_MAX)
