"""What the page shows that Gradio has no part for: a few lines of HTML, every word of them escaped."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from gemma_playground.client import Answer, Client


def lines(facts: Mapping[str, Any]) -> str:
    """Names with their values; what is not known is a dash."""
    told = {name: "–" if value in (None, "") else str(value) for name, value in facts.items()}
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def facts(answer: Answer) -> str:
    """The inspector's lines."""
    usage, seconds = answer.whole and answer.whole.usage, answer.last - answer.first
    details = usage and usage.prompt_tokens_details
    told: dict[str, Any] = {
        "TTFT": f"{(answer.first - answer.begun) * 1000:,.0f} ms" if answer.first else None,
        "tokens/s": f"{(usage.completion_tokens - 1) / seconds:,.1f}" if usage and seconds else None,
        "prompt tokens": usage and usage.prompt_tokens,
        "cached tokens": details and details.cached_tokens,
        "completion tokens": usage and usage.completion_tokens,
        "finish reason": answer.choice and answer.choice.finish_reason,
    }
    return lines(told)


def tokens(answer: Answer) -> str:
    """Each token with its probability and its rivals to hover over; nothing without log probabilities."""
    found, spans = answer.choice and answer.choice.logprobs, ""
    for token in (found and found.content) or ():
        rivals = [f"{each.token!r} {_percent(each.logprob):.1f} %" for each in token.top_logprobs or (token,)]
        doubt, title = min(4, int(5 - _percent(token.logprob) / 20)), escape(" · ".join(rivals))
        spans += f'<span class="doubt{doubt}" title="{title}">{escape(token.token)}</span>'
    return spans and f'<p class="tokens">{spans}</p>'


def _percent(logprob: float) -> float:
    return 100 * math.exp(min(0.0, logprob))


def heading(client: Client) -> str:
    """The page's title: which model, and how it is."""
    state = f'<p class="state {client.state}" role="status">{escape(client.facts["health"])}</p>'
    return f"<h1>{escape(next(iter(client.models), 'Gemma 3n'))} playground</h1>{state}"
