"""Parameters that other servers and their clients define, and that cannot or need not be honoured here.

A parameter is here when clients send it. It has no effect when no value of it could change the answer of this
server; else it is refused, unless its value is the one that asks for nothing. Those that are honoured stand
where they belong, in ``sampling``, ``chat`` and ``completions``.
"""

from typing import Annotated, Any

from gemma_gateway.schema.base import NoEffect, Only, Strict

REASONING = NoEffect("the model does not reason before it answers")
_BEAMS = NoEffect("it ranks beams, and there is no beam search")
_LABEL = NoEffect("a label; the header `x-request-id` names a request")
_ROUTING = NoEffect("this server answers by itself, with the model that `model` names")
_UNUSED = NoEffect("it tunes a method that is refused unless it is off")
_CACHE = NoEffect("what was computed before is always used again")
_CONTEXT = NoEffect("the context is the model's own; a prompt that does not fit is refused, never shortened")
_MASK = "use 'structured_outputs'"


class Reasoning(Strict):
    """How a model is to reason. Gemma 3n does not."""

    reasoning_effort: Annotated[Any, REASONING] = None
    reasoning: Annotated[Any, REASONING] = None
    reasoning_format: Annotated[Any, REASONING] = None
    reasoning_budget: Annotated[Any, REASONING] = None
    include_reasoning: Annotated[Any, REASONING] = None
    separate_reasoning: Annotated[Any, REASONING] = None
    stream_reasoning: Annotated[Any, REASONING] = None
    enable_thinking: Annotated[Any, REASONING] = None
    thinking: Annotated[Any, REASONING] = None
    thinking_budget: Annotated[Any, REASONING] = None
    think: Annotated[Any, REASONING] = None


class Samplers(Strict):
    """Other ways to choose a token: of vLLM, llama.cpp, Ollama and Text Generation Inference."""

    use_beam_search: Annotated[Any, Only(False, hint="there is no beam search")] = None
    length_penalty: Annotated[Any, _BEAMS] = None
    early_stopping: Annotated[Any, _BEAMS] = None
    typical_p: Annotated[Any, Only(1.0)] = None
    tfs_z: Annotated[Any, Only(1.0)] = None
    top_a: Annotated[Any, Only(0)] = None
    top_n_sigma: Annotated[Any, Only(-1, 0)] = None
    mirostat: Annotated[Any, Only(0)] = None
    mirostat_tau: Annotated[Any, _UNUSED] = None
    mirostat_eta: Annotated[Any, _UNUSED] = None
    dynatemp_range: Annotated[Any, Only(0)] = None
    dynatemp_exponent: Annotated[Any, _UNUSED] = None
    xtc_probability: Annotated[Any, Only(0)] = None
    xtc_threshold: Annotated[Any, _UNUSED] = None
    dry_multiplier: Annotated[Any, Only(0)] = None
    dry_base: Annotated[Any, _UNUSED] = None
    dry_allowed_length: Annotated[Any, _UNUSED] = None
    dry_penalty_last_n: Annotated[Any, _UNUSED] = None
    dry_sequence_breakers: Annotated[Any, _UNUSED] = None
    repeat_last_n: Annotated[Any, Only(64, -1, hint="penalties look at the whole text")] = None
    min_keep: Annotated[Any, Only(0, 1)] = None
    logits_processors: Annotated[Any, Only()] = None
    custom_logit_processor: Annotated[Any, Only()] = None


class Output(Strict):
    """Other ways to say what the answer must look like, or what is told beside it."""

    include_stop_str_in_output: Annotated[Any, Only(False)] = None
    no_stop_trim: Annotated[Any, Only(False)] = None
    stop_regex: Annotated[Any, Only(hint="use 'stop'")] = None
    spaces_between_special_tokens: Annotated[
        Any, NoEffect("Gemma's tokenizer puts no spaces between special tokens")
    ] = None
    ebnf: Annotated[Any, Only(hint=f"{_MASK}, with Lark's notation in 'grammar'")] = None
    grammar: Annotated[Any, Only("", hint=f"{_MASK}, with Lark's notation in 'grammar'")] = None
    guided_decoding_backend: Annotated[Any, NoEffect("there is one, and it takes every form")] = None
    return_hidden_states: Annotated[Any, Only(False)] = None
    details: Annotated[Any, Only(False)] = None
    n_probs: Annotated[Any, Only(0, hint="use 'logprobs'")] = None
    timings_per_token: Annotated[Any, Only(False)] = None


class Prompting(Strict):
    """Other ways to make the prompt."""

    truncate_prompt_tokens: Annotated[Any, Only(hint="a prompt is never shortened")] = None
    truncate: Annotated[Any, Only(hint="a prompt is never shortened")] = None
    transforms: Annotated[Any, _CONTEXT] = None
    num_ctx: Annotated[Any, _CONTEXT] = None
    mm_processor_kwargs: Annotated[Any, Only()] = None
    media_io_kwargs: Annotated[Any, Only()] = None
    plugins: Annotated[Any, Only()] = None
    lora_path: Annotated[Any, Only(hint="name a model in 'model'")] = None
    adapter_id: Annotated[Any, Only(hint="name a model in 'model'")] = None
    options: Annotated[Any, Only(hint="put its fields into the body itself")] = None
    extra_body: Annotated[Any, Only(hint="put its fields into the body itself")] = None


class Serving(Strict):
    """Where, when and under which name a request runs."""

    request_id: Annotated[Any, _LABEL] = None
    rid: Annotated[Any, _LABEL] = None
    session_id: Annotated[Any, _LABEL] = None
    priority: Annotated[Any, NoEffect("requests are answered in the order in which they come")] = None
    keep_alive: Annotated[Any, NoEffect("the model is never unloaded")] = None
    cache_prompt: Annotated[Any, _CACHE] = None
    id_slot: Annotated[Any, NoEffect("the server chooses the slot")] = None
    provider: Annotated[Any, _ROUTING] = None
    route: Annotated[Any, _ROUTING] = None
    models: Annotated[Any, _ROUTING] = None
    fallbacks: Annotated[Any, _ROUTING] = None
    usage: Annotated[Any, NoEffect("use `stream_options.include_usage`; a whole answer always tells it")] = (
        None
    )
    kv_transfer_params: Annotated[Any, Only()] = None


class Extensions(Reasoning, Samplers, Output, Prompting, Serving):
    """All of them."""
