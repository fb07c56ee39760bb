"""What the loop tells of its work: where the time went, and what was done."""

from gemma_model.protocol import Observation, Times

from .counting import Clock, Listener, generation, idle, loop


def test_where_the_time_went() -> None:
    clock = Clock()
    engine, _ = loop(slots=1, clock=clock)
    first, second = Listener(), Listener()
    engine.submit(generation(prompt=6, max_tokens=2), first)
    engine.submit(generation(prompt=1, max_tokens=1), second)
    for seconds in (1.0, 2.0, 4.0, 8.0):  # two chunks, another token; then the second request
        clock.now += seconds
        engine.step()
    assert first.steps[-1].times == Times(queued=1, prefill=2, decode=4)
    assert second.steps[-1].times == Times(queued=15, prefill=0, decode=0)
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


def test_what_was_done_is_counted() -> None:
    engine, model = loop(slots=2)
    for _ in range(2):
        engine.submit(generation(prompt=6, n=2), Listener())
        while engine.step():
            pass
    model.refused = 2
    engine.submit(generation(), Listener())
    engine.submit(generation(prompt=6, max_tokens=9, prompt_logprobs=0), Listener())
    for _ in range(3):  # a token whose log probability is wanted takes the whole chunk here
        engine.step()
    assert (engine.load().running, engine.load().slots_used, engine.load().cache_tokens_used) == (1, 1, 2)
    engine.cancel(3)
    engine.step()
    totals = engine.load().totals
    assert (totals.prompt_tokens, totals.generated_tokens) == (12, 12)
    assert (totals.prefix_queries, totals.prefix_hits) == (6 + 6 + 1, 5)
    assert totals.finished == {"length": 4, "failed": 1, "cancelled": 1}
    assert idle(engine)
