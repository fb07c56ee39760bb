"""How the options of a request reach the engine, and their limits."""

import pytest

from gemma_model.checkpoint import Checkpoint
from gemma_model.request_processor import RequestProcessor
from gemma_wire import (
    ChoiceGrammar,
    ContextLengthExceeded,
    InvalidRequest,
    JsonGrammar,
    Message,
    Options,
    Request,
    Tool,
)


def test_every_option_reaches_the_generation(processor: RequestProcessor, checkpoint: Checkpoint) -> None:
    options = Options(
        model="served",
        prompt_token_ids=(2, 300),
        min_p=0.1,
        repetition_penalty=1.1,
        frequency_penalty=0.2,
        presence_penalty=-0.3,
        logit_bias={5: -100},
        stop=("x",),
        stop_token_ids=(300,),
        n=3,
        logprobs=2,
        prompt_logprobs=4,
        logprob_token_ids=(7, 300),
        return_token_ids=True,
        continuous_usage_stats=True,
        skip_special_tokens=False,
    )
    processed = processor.process(Request(options=options))
    engine_request, output_options = processed.engine_request, processed.output_options
    assert engine_request.prompt.token_ids == output_options.prompt == (2, 300)
    assert engine_request.sampling == checkpoint.defaults.model_copy(
        update={
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "frequency_penalty": 0.2,
            "presence_penalty": -0.3,
            "logit_bias": {5: -100},
        }
    )
    assert engine_request.stop_token_ids == output_options.stop_token_ids == {1, 9, 300}
    assert (engine_request.n, engine_request.logprobs, engine_request.prompt_logprobs) == (3, 2, 4)
    assert engine_request.logprob_token_ids == (7, 300)
    assert (output_options.n, output_options.logprobs, output_options.token_ids, output_options.stop) == (
        3,
        True,
        True,
        ("x",),
    )
    assert (output_options.prompt_logprobs, output_options.usage, output_options.special) == (
        True,
        True,
        True,
    )
    assert engine_request.constraint is None


def test_a_prediction_is_tokenised_as_text(processor: RequestProcessor) -> None:
    plain, predicted, empty = (
        processor.process(Request(prompt="Hello", options=Options(prediction=text)))
        for text in (None, "Hello you<end_of_turn>", "")
    )
    assert plain.engine_request.prediction == empty.engine_request.prediction == ()
    ids = predicted.engine_request.prediction
    assert processor.tokens(Request(options=Options(op="detokenize", prompt_token_ids=ids))).text == (
        "Hello you<end_of_turn>"
    )
    assert not set(ids) & {1, 9}, "no control token"
    assert (plain.output_options.prediction, predicted.output_options.prediction) == (False, True)
    longest = processor.process(Request(prompt="a", options=Options(prediction="a b " * 10**5)))
    assert len(longest.engine_request.prediction) == processor._checkpoint.context_length


def test_grammars_and_tools_become_constraints(processor: RequestProcessor) -> None:
    tool, grammar = Tool(name="f"), ChoiceGrammar(choices=("yes",))
    messages = (Message(role="user", content="Hi"),)
    with_grammar = processor.process(Request(prompt="x", options=Options(grammar=grammar)))
    with_tools = processor.process(Request(messages=messages, options=Options(tools=(tool,))))
    both = processor.process(Request(messages=messages, options=Options(tools=(tool,), grammar=grammar)))
    assert [processed.output_options.tools for processed in (with_grammar, with_tools, both)] == [
        False,
        True,
        True,
    ]
    assert [processed.output_options.call_first for processed in (with_grammar, with_tools, both)] == [
        True,
        False,
        True,
    ]
    assert all(
        processed.engine_request.constraint is not None for processed in (with_grammar, with_tools, both)
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (Options(model="another"), "options.model"),
        (Options(n=5), "options.n"),
        (Options(logit_bias={544: 1.0}), "options.logit_bias"),
        (Options(stop_token_ids=(544,)), "options.stop_token_ids"),
        (Options(logprobs=0, logprob_token_ids=(544,)), "options.logprob_token_ids"),
        (Options(logprob_token_ids=(5,)), "options.logprob_token_ids"),
        (Options(logprobs=0, logprob_token_ids=tuple(range(21))), "options.logprob_token_ids"),
        (Options(ignore_eos=True, grammar=ChoiceGrammar(choices=("a",))), "options.ignore_eos"),
        (Options(grammar=JsonGrammar(json_schema={"not": {}})), "options.grammar"),
        (Options(grammar=ChoiceGrammar(choices=("a" * 6000,))), "options.grammar"),
    ],
)
def test_options_beyond_the_model_are_refused_by_name(
    processor: RequestProcessor, options: Options, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        processor.process(Request(prompt="x", options=options))
    assert caught.value.field == field


@pytest.mark.parametrize(("top", "n", "taken"), [(20, 1, 3120), (20, 3, 1040), (0, 4, 4095)])
def test_log_probabilities_of_a_prompt_have_a_limit(
    processor: RequestProcessor, top: int, n: int, taken: int
) -> None:
    """65,536 of them, whatever the context holds."""

    def ask(length: int) -> None:
        options = Options(prompt_token_ids=(300,) * length, prompt_logprobs=top, n=n)
        processor.process(Request(options=options))

    ask(taken)
    if taken < 4095:
        with pytest.raises(InvalidRequest, match=r"log probabilities .*; the limit is 65,536") as caught:
            ask(taken + 1)
        assert caught.value.field == "options.prompt_logprobs"


def test_many_log_probabilities_of_few_tokens_are_accepted(processor: RequestProcessor) -> None:
    options = Options(logprobs=0, logprob_token_ids=tuple(range(128)))
    processed = processor.process(Request(prompt="x", max_tokens=512, options=options))
    assert len(processed.engine_request.logprob_token_ids) == 128


def test_the_last_turn_may_be_left_open(processor: RequestProcessor) -> None:
    messages = (Message(role="user", content="Count."), Message(role="assistant", content="One, "))
    options = Options(op="tokenize", continue_final_message=True)
    text = processor.tokens(Request(messages=messages, options=options)).text
    assert text == "<bos><start_of_turn>user\nCount.<end_of_turn>\n<start_of_turn>model\nOne,"
    options = Options(op="tokenize", add_generation_prompt=False)
    text = processor.tokens(Request(messages=messages[:1], options=options)).text
    assert text == "<bos><start_of_turn>user\nCount.<end_of_turn>\n"


def test_token_ids_beyond_the_vocabulary_are_refused(processor: RequestProcessor) -> None:
    for op in ("generate", "detokenize"):
        options = Options.model_validate({"op": op, "prompt_token_ids": [2, 544]})
        with pytest.raises(InvalidRequest, match=r"544.*has 544 tokens") as caught:
            (processor.process if op == "generate" else processor.tokens)(Request(options=options))
        assert caught.value.field == "options.prompt_token_ids"


def test_a_prompt_of_token_ids_that_is_too_long_names_its_field(processor: RequestProcessor) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        processor.process(Request(options=Options(prompt_token_ids=(300,) * 5000)))
    assert caught.value.field == "options.prompt_token_ids"


def test_tokenize_and_detokenize(processor: RequestProcessor) -> None:
    message = Message(role="user", content="Grüße 👋")
    there = processor.tokens(Request(messages=(message,), options=Options(op="tokenize")))
    assert there.text == "<bos><start_of_turn>user\nGrüße 👋<end_of_turn>\n<start_of_turn>model\n"
    assert there.token_ids == processor.process(Request(messages=(message,))).engine_request.prompt.token_ids
    assert (len(there.pieces), there.context_length) == (len(there.token_ids), 4096)
    back = Options(op="detokenize", prompt_token_ids=there.token_ids)
    assert processor.tokens(Request(options=back)) == there
    assert processor.tokens(Request(prompt="Hi", options=Options(op="tokenize"))).text == "<bos>Hi"
