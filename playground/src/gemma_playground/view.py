"""What the page shows that Gradio has no part for: a few lines of HTML, every word of them escaped."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from openai.types.chat import ChatCompletionTokenLogprob

from gemma_playground.client import Answer
from gemma_playground.status import State


def facts(answer: Answer | None = None) -> str:
    """The inspector's lines."""
    told = Answer() if answer is None else answer
    usage = told.usage
    details = usage and usage.prompt_tokens_details
    return _lines(
        {
            "TTFT": None if told.ttft is None else f"{told.ttft * 1000:,.0f} ms",
            "tokens/s": None if told.speed is None else f"{told.speed:,.1f}",
            "prompt tokens": usage and usage.prompt_tokens,
            "cached tokens": details and details.cached_tokens,
            "completion tokens": usage and usage.completion_tokens,
            "finish reason": told.finish_reason,
        }
    )


def _lines(lines: Mapping[str, Any]) -> str:
    rows = (
        f"<div><dt>{escape(name)}</dt><dd>{escape('–' if value in (None, '') else str(value))}</dd></div>"
        for name, value in lines.items()
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


def tokens(answer: Answer) -> str:
    """Each token with its probability and its rivals to hover over; nothing without log probabilities."""
    if not answer.tokens:
        return ""
    return f'<p class="tokens">{"".join(_token(token) for token in answer.tokens)}</p>'


def _token(token: ChatCompletionTokenLogprob) -> str:
    rivals = [f"{each.token!r} {_percent(each.logprob)}" for each in token.top_logprobs]
    title = " · ".join(rivals) or f"{token.token!r} {_percent(token.logprob)}"
    doubt = min(4, int(5 * (1 - math.exp(min(0.0, token.logprob)))))
    return f'<span class="doubt{doubt}" title="{escape(title)}">{escape(token.token)}</span>'


def _percent(logprob: float) -> str:
    return f"{100 * math.exp(min(0.0, logprob)):.1f} %"


def heading(state: State) -> str:
    """The page's title: which model, and how it is."""
    name = state.models[0] if state.models else "Gemma 3n"
    dot = "ready" if state.ready else "down" if state != State() else "asking"
    return (
        f'<h1>{escape(name)} playground</h1><p class="state {dot}" role="status">{escape(state.sentence)}</p>'
    )


def health(state: State, base_url: str) -> str:
    """The status tab's lines."""
    known = ("context_length", "device", "dtype", "engine", "max_num_seqs")
    told = {name.replace("_", " "): state.told.get(name) for name in known if name in state.told}
    return _lines(
        {
            "server": base_url,
            "health": state.sentence,
            "models": ", ".join(state.models),
            "running": None if state.running is None else f"{state.running:.0f}",
            "waiting": None if state.waiting is None else f"{state.waiting:.0f}",
            "tokens/s now": None if state.speed is None else f"{state.speed:.1f}",
            **told,
        }
    )
