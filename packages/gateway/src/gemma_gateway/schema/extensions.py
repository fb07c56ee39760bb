"""Parameters of other servers that are ignored or unsupported here.

A parameter is listed when clients send it. It is ignored if no value of it could change this server's
response; otherwise it is unsupported, unless its value is a no-op. The supported parameters of other servers
are in ``sampling``, ``chat`` and ``completions``.
"""

from typing import Annotated, Any

from gemma_gateway.schema.strict_model import Ignored, StrictModel, Unsupported

REASONING = Ignored("the model has no reasoning mode")
_BEAMS = Ignored("it tunes beam search, which is not supported")
_LABEL = Ignored("a label; use the header `x-request-id` to name a request")
_ROUTING = Ignored("there is no routing: `model` names the model that is used")
_UNUSED = Ignored("it tunes a method that is not supported")
_CACHE = Ignored("the prefix cache is always used")
_CONTEXT = Ignored("the context length is fixed; a prompt that is too long is refused, never truncated")
_MASK = "use 'structured_outputs'"


class ReasoningParams(StrictModel):
    """Reasoning, which Gemma 3n does not have."""

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


class SamplerParams(StrictModel):
    """Samplers of vLLM, llama.cpp, Ollama and Text Generation Inference."""

    use_beam_search: Annotated[Any, Unsupported(False, hint="there is no beam search")] = None
    length_penalty: Annotated[Any, _BEAMS] = None
    early_stopping: Annotated[Any, _BEAMS] = None
    typical_p: Annotated[Any, Unsupported(1.0)] = None
    tfs_z: Annotated[Any, Unsupported(1.0)] = None
    top_a: Annotated[Any, Unsupported(0)] = None
    top_n_sigma: Annotated[Any, Unsupported(-1, 0)] = None
    mirostat: Annotated[Any, Unsupported(0)] = None
    mirostat_tau: Annotated[Any, _UNUSED] = None
    mirostat_eta: Annotated[Any, _UNUSED] = None
    dynatemp_range: Annotated[Any, Unsupported(0)] = None
    dynatemp_exponent: Annotated[Any, _UNUSED] = None
    xtc_probability: Annotated[Any, Unsupported(0)] = None
    xtc_threshold: Annotated[Any, _UNUSED] = None
    dry_multiplier: Annotated[Any, Unsupported(0)] = None
    dry_base: Annotated[Any, _UNUSED] = None
    dry_allowed_length: Annotated[Any, _UNUSED] = None
    dry_penalty_last_n: Annotated[Any, _UNUSED] = None
    dry_sequence_breakers: Annotated[Any, _UNUSED] = None
    repeat_last_n: Annotated[Any, Unsupported(64, -1, hint="penalties apply to the complete text")] = None
    min_keep: Annotated[Any, Unsupported(0, 1)] = None
    logits_processors: Annotated[Any, Unsupported()] = None
    custom_logit_processor: Annotated[Any, Unsupported()] = None


class OutputParams(StrictModel):
    """The format of the output, and what is reported besides it."""

    include_stop_str_in_output: Annotated[Any, Unsupported(False)] = None
    no_stop_trim: Annotated[Any, Unsupported(False)] = None
    stop_regex: Annotated[Any, Unsupported(hint="use 'stop'")] = None
    spaces_between_special_tokens: Annotated[
        Any, Ignored("Gemma's tokenizer puts no spaces between special tokens")
    ] = None
    ebnf: Annotated[Any, Unsupported(hint=f"{_MASK}, with Lark's notation in 'grammar'")] = None
    grammar: Annotated[Any, Unsupported("", hint=f"{_MASK}, with Lark's notation in 'grammar'")] = None
    guided_decoding_backend: Annotated[Any, Ignored("there is one backend for all forms")] = None
    return_hidden_states: Annotated[Any, Unsupported(False)] = None
    details: Annotated[Any, Unsupported(False)] = None
    n_probs: Annotated[Any, Unsupported(0, hint="use 'logprobs'")] = None
    timings_per_token: Annotated[Any, Unsupported(False)] = None


class PromptParams(StrictModel):
    """The construction of the prompt."""

    truncate_prompt_tokens: Annotated[Any, Unsupported(hint="a prompt is never truncated")] = None
    truncate: Annotated[Any, Unsupported(hint="a prompt is never truncated")] = None
    transforms: Annotated[Any, _CONTEXT] = None
    num_ctx: Annotated[Any, _CONTEXT] = None
    mm_processor_kwargs: Annotated[Any, Unsupported()] = None
    media_io_kwargs: Annotated[Any, Unsupported()] = None
    plugins: Annotated[Any, Unsupported()] = None
    lora_path: Annotated[Any, Unsupported(hint="name a model in 'model'")] = None
    adapter_id: Annotated[Any, Unsupported(hint="name a model in 'model'")] = None
    options: Annotated[Any, Unsupported(hint="put its fields into the body itself")] = None
    extra_body: Annotated[Any, Unsupported(hint="put its fields into the body itself")] = None


class ServingParams(StrictModel):
    """Scheduling, routing and labels."""

    request_id: Annotated[Any, _LABEL] = None
    rid: Annotated[Any, _LABEL] = None
    session_id: Annotated[Any, _LABEL] = None
    priority: Annotated[Any, Ignored("requests are scheduled in the order of their arrival")] = None
    keep_alive: Annotated[Any, Ignored("the model is never unloaded")] = None
    cache_prompt: Annotated[Any, _CACHE] = None
    id_slot: Annotated[Any, Ignored("the server chooses the slot")] = None
    provider: Annotated[Any, _ROUTING] = None
    route: Annotated[Any, _ROUTING] = None
    models: Annotated[Any, _ROUTING] = None
    fallbacks: Annotated[Any, _ROUTING] = None
    usage: Annotated[
        Any, Ignored("use `stream_options.include_usage`; a complete response always has it")
    ] = None
    kv_transfer_params: Annotated[Any, Unsupported()] = None


class Extensions(ReasoningParams, SamplerParams, OutputParams, PromptParams, ServingParams):
    """All ignored and unsupported parameters of other servers."""
