"""What a prompt loads from the prefix cache instead of running it."""

from collections.abc import Sequence as Many

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.sequence import EncoderInput, MediaKey, Sequence, TokenKey, make_token_keys
from gemma_model.engine.step_plan import BlockCopy, StepPlan

BLOCK, NEW = 4, 99


class Server:
    """A scheduler whose steps always succeed."""

    def __init__(self, blocks: int = 100, slots: int = 4, chunk: int = 8) -> None:
        self.cache = PrefixCache(blocks, ring=1000, block_tokens=BLOCK)
        self.scheduler = Scheduler(KVSlots(slots), self.cache, 100, chunk)
        self.count = 0

    def submit(self, token_keys: Many[TokenKey], max_tokens: int = 1, n: int = 1) -> list[Sequence]:
        group = [Sequence((self.count, i), list(token_keys), max_tokens) for i in range(n)]
        self.count += 1
        self.scheduler.submit(group)
        return group

    def step(self) -> StepPlan:
        plan = self.scheduler.plan()
        self.scheduler.commit(plan, {row.seq_id: [NEW] for row in plan.rows})
        return plan

    def run(self, *groups: list[Sequence]) -> dict[int, int]:
        """Run all; the prompt tokens that each request ran itself."""
        ran = {group[0].seq_id[0]: 0 for group in groups}
        while any(sequence.finish is None for group in groups for sequence in group):
            for prefill in self.step().prefills:
                ran[prefill.seq_id[0]] += prefill.stop - prefill.start
        return ran

    def cached(self, token_keys: Many[TokenKey]) -> int:
        """Run a prompt; how much of it was in the cache."""
        group = self.submit(token_keys)
        self.run(group)
        return group[0].reused_length


def prompt(length: int, first: int = 0) -> list[TokenKey]:
    return list(range(first, first + length))


def test_the_same_prompt_again_runs_less_than_a_block_and_one_token() -> None:
    server = Server()
    assert [server.cached(prompt(19)) for _ in range(2)] == [0, 16]
    assert [server.cached(prompt(16)), server.cached(prompt(17))] == [12, 16]


def test_another_question_after_the_same_system_prompt() -> None:
    server = Server()
    server.cached(prompt(40))
    assert server.cached(prompt(22) + prompt(30, first=500)) == 20


def test_the_next_turn_continues_after_the_response() -> None:
    server = Server()
    group = server.submit(prompt(10), max_tokens=30)
    server.run(group)
    stored = 10 + 30 - 1  # the last token was never run
    assert server.cached([*group[0].token_keys, 7, 8, 9]) == stored // BLOCK * BLOCK


def test_a_cancelled_response_is_stored_too() -> None:
    server = Server()
    (sequence,) = server.submit(prompt(10), max_tokens=100)
    for _ in range(20):
        server.step()
    server.scheduler.cancel(sequence.seq_id)
    assert server.cached([*sequence.token_keys, 7, 8]) == sequence.stored_length // BLOCK * BLOCK > 20


def test_prompts_that_arrive_together_run_their_common_prefix_once() -> None:
    server = Server(slots=16)
    groups = [server.submit(prompt(50) + prompt(6, first=100 * i)) for i in range(1, 17)]
    ran = server.run(*groups)
    assert ran.pop(0) == 56
    assert set(ran.values()) == {56 - 48}


def test_if_the_first_is_cancelled_another_runs_the_prefix() -> None:
    server = Server()
    first, second = server.submit(prompt(50)), server.submit(prompt(50))
    server.step()
    server.scheduler.cancel(first[0].seq_id)
    assert server.run(second) == {1: 50 - 8}


def test_a_choice_that_continues_the_prompt_of_a_cancelled_one_stores_it() -> None:
    server = Server()
    first, second = server.submit(prompt(20), n=2)
    server.step()
    server.scheduler.cancel(first.seq_id)
    server.run([second])
    assert server.cached(prompt(20)) == 16


def test_a_failed_sequence_stores_nothing_more() -> None:
    server = Server()
    (sequence,) = server.submit(prompt(8), max_tokens=50)
    while sequence.generated_length < 10:
        server.step()
    server.scheduler.commit(server.scheduler.plan(), {}, {sequence.seq_id})
    assert server.scheduler.prefix_cached == 8, "the prompt was stored, the rest has failed"
    assert server.cached([*sequence.token_keys, 7]) == 8


def test_the_end_of_the_least_recently_used_prompt_makes_room() -> None:
    server = Server(blocks=10)
    system = prompt(16)
    old, new, other = (system + prompt(12, first) for first in (100, 200, 300))
    server.cached(old)
    server.cached(new)
    assert server.scheduler.prefix_cached == 4 * (4 + 3 + 3)
    server.cached(other)  # takes the three blocks of the oldest
    assert [server.cached([*new, 1]), server.cached([*other, 1])] == [28, 28]
    assert server.cached([*old, 1]) == 16


def test_what_runs_is_not_evicted_and_a_full_pool_delays_nobody() -> None:
    server = Server(blocks=3)
    (running,) = server.submit(prompt(12), max_tokens=100)
    for _ in range(3):
        server.step()
    groups = [server.submit(prompt(40, first=500)) for _ in range(3)]
    assert server.run(*groups) == {1: 40, 2: 40, 3: 40}
    assert server.cached(prompt(13)) == 12
    assert running.finish is None


def test_the_list_of_unused_blocks_does_not_grow() -> None:
    server = Server(blocks=3)
    for _ in range(500):
        server.cached(prompt(8))
    assert len(server.cache._unused) < 100


def test_nothing_waits_in_the_tree_after_all_have_ended() -> None:
    server = Server(blocks=2)
    server.run(*(server.submit(prompt(40, first)) for first in range(0, 1000, 100)))
    nodes, level = 0, [server.cache._root]
    while level := [child for node in level for child in node.children.values()]:
        nodes += len(level)
    assert nodes == server.scheduler.prefix_cached // BLOCK == 2


def test_without_a_pool_everything_runs() -> None:
    server = Server(blocks=0)
    assert [server.cached(prompt(40)) for _ in range(2)] == [0, 0]


def test_images_are_compared_by_digest() -> None:
    server, ids = Server(), list(range(30))
    keys = {name: make_token_keys(ids, [(8, 12, name)]) for name in (b"cat", b"dog")}
    assert [server.cached(keys[name]) for name in (b"cat", b"dog", b"dog")] == [0, 8, 28]


def test_a_prompt_waits_for_an_image_that_another_one_runs() -> None:
    server, keys = Server(), make_token_keys(range(30), [(8, 12, b"cat")])
    groups = [server.submit(keys), server.submit(keys)]
    for group in groups:
        group[0].encoder_inputs = (EncoderInput("cat", 8, 20),)
    encoded, ran = set[MediaKey](), 0
    while any(group[0].finish is None for group in groups):
        plan = server.scheduler.plan(encoded)
        ran += sum(prefill.stop - prefill.start for prefill in plan.prefills)
        encoded |= {plan.encode.key} if plan.encode else set()
        server.scheduler.commit(plan, {row.seq_id: [NEW] for row in plan.rows})
    assert ran == 30 + 2


def test_saves_come_with_the_next_plan_and_loads_after_them() -> None:
    server = Server(chunk=100)
    first = server.submit(prompt(9))
    server.run(first)
    server.submit(prompt(9))
    plan = server.scheduler.plan()
    assert plan.saves == (BlockCopy(0, 0, (0, 1)),)
    assert plan.loads == (BlockCopy(0, 0, (0, 1)),)
    assert [(prefill.start, prefill.stop) for prefill in plan.prefills] == [(8, 9)]
