"""What the engine reports: where the time went, and what was done."""

from gemma_model.engine_types import Observation
from gemma_wire import Timings

from .counting import Clock, Listener, idle, make_engine, make_request


def test_where_the_time_went() -> None:
    clock = Clock()
    engine, _ = make_engine(slots=1, clock=clock)
    first, second = Listener(), Listener()
    engine.submit(make_request(prompt=6, max_tokens=2), first)
    engine.submit(make_request(prompt=1, max_tokens=1), second)
    for seconds in (1.0, 2.0, 4.0, 8.0):  # two chunks, another token; then the second request
        clock.now += seconds
        engine.step()
    assert first.steps[-1].timings == Timings(queued=1, prefill=2, decode=4)
    assert second.steps[-1].timings == Timings(queued=15, prefill=0, decode=0)
    assert engine.observations() == [
        Observation("queue", 1),
        Observation("prefill", 2),
        Observation("first_token", 3),
        Observation("inter_token", 4),
        Observation("decode", 4),
        Observation("queue", 15),
        Observation("prefill", 0),
        Observation("first_token", 15),
        Observation("decode", 0),
    ]
    assert engine.observations() == []


def test_totals_are_counted() -> None:
    engine, model = make_engine(slots=2)
    for _ in range(2):
        engine.submit(make_request(prompt=6, n=2), Listener())
        while engine.step():
            pass
    model.refused = 2
    engine.submit(make_request(), Listener())
    engine.submit(make_request(prompt=6, max_tokens=9, prompt_logprobs=0), Listener())
    for _ in range(3):  # a token whose log probability is wanted takes the whole chunk here
        engine.step()
    assert (engine.info().running, engine.info().slots_used, engine.info().cache_tokens_used) == (1, 1, 2)
    engine.cancel(3)
    engine.step()
    totals = engine.info().totals
    assert (totals.prompt_tokens, totals.generated_tokens) == (12, 12)
    assert (totals.prefix_queries, totals.prefix_hits) == (6 + 6, 5)
    assert totals.finished == {"length": 4, "failed": 1, "cancelled": 1}
    assert idle(engine)
