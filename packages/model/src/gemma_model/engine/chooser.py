"""The logits of a step to tokens: what each request asks is put before the sampler."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from torch import Tensor

from gemma_model.engine.choice import Choice
from gemma_model.engine.masks import Masks
from gemma_model.engine.outcome import Outcome
from gemma_model.engine.plan import Row
from gemma_model.engine.sampler import Draw, Penalties, sample, uniform
from gemma_model.engine.scores import score
from gemma_model.engine.sequence import Name

log = logging.getLogger(__name__)


class Chooser:
    """Chooses the next tokens of a step.

    Args:
        vocab: as many tokens as the model has logits.
    """

    def __init__(self, vocab: int) -> None:
        self._masks = Masks(vocab)

    def prepare(self, rows: Sequence[Row], choices: Mapping[Name, Choice]) -> Mapping[Name, Future[Tensor]]:
        """Begin with what can be done while the model runs; ``choose`` takes the result."""
        return self._masks.ask(rows, choices)

    def choose(
        self,
        logits: Tensor,
        rows: Sequence[Row],
        choices: Mapping[Name, Choice],
        prepared: Mapping[Name, Future[Tensor]],
    ) -> Outcome:
        """One token for each row whose constraint does not break, and its scores if they were asked for.

        Args:
            logits: ``[rows, vocab]`` fp32; some rows are changed.
            rows: who gets a token.
            choices: at least theirs.
            prepared: by ``prepare``.
        """
        draws, failed = list[Draw](), dict[Name, str]()
        for row in rows:
            try:
                mask = prepared[row.name].result() if row.name in prepared else None
                draws.append(_draw(row, choices[row.name], mask))
            except Exception as error:
                failed[row.name] = describe_failure(row.name, error)
                draws.append(Draw())  # what it draws is not used
        asked = {place: choices[row.name].generation for place, row in enumerate(rows)}
        raw = {i: logits[i : i + 1].clone() for i, one in asked.items() if one.logprobs is not None}
        ids = sample(logits, draws)
        tokens = {row.name: token_id for row, token_id in zip(rows, ids, strict=True)}
        scores = {
            rows[i].name: score(one, [ids[i]], asked[i].logprobs or 0, asked[i].logprob_token_ids)[0]
            for i, one in raw.items()
        }
        return Outcome({name: tokens[name] for name in tokens if name not in failed}, failed, scores)

    def close(self) -> None:
        """Return when no thread is left."""
        self._masks.close()


def describe_failure(name: Name, error: Exception) -> str:
    """What to tell whoever asked for it; the log gets all of it."""
    log.error("choice %d of request %d failed", name[1], name[0], exc_info=error)
    return f"{type(error).__name__}: {error}"


def _draw(row: Row, choice: Choice, forbidden: Tensor | None) -> Draw:
    sampling = choice.generation.sampling
    assert sampling.seed is not None, "the engine draws a seed for those who gave none"
    return Draw(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        random=uniform(sampling.seed, row.generated, choice.index) if sampling.temperature else 0.0,
        banned=() if row.may_stop else choice.generation.stop_token_ids,
        penalties=_penalties(choice),
        bias=choice.bias,
        forbidden=forbidden,
    )


def _penalties(choice: Choice) -> Penalties | None:
    tally, asked = choice.tally, choice.generation.sampling
    if tally is None:
        return None
    return Penalties(
        ids=tally.ids,
        counts=tally.counts,
        repetition=asked.repetition_penalty,
        frequency=asked.frequency_penalty,
        presence=asked.presence_penalty,
    )
