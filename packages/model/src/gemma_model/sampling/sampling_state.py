"""What sampling remembers of one choice of a request: its token counts and its constraint."""

from collections.abc import Sequence

from gemma_model.engine_types import EngineRequest
from gemma_model.sampling.penalties import TokenCounts, bias_arrays, needed_counts


class SamplingState:
    """The state of one choice of a request.

    Args:
        request: with a seed.
        choice: index of the choice.
    """

    def __init__(self, request: EngineRequest, choice: int) -> None:
        self.request, self.choice = request, choice
        self.token_counts = needed_counts(request.sampling, request.prompt.token_ids)
        self.bias = bias_arrays(request.sampling)
        self.constraint = request.constraint and request.constraint.fork()

    def append(self, token_id: int) -> None:
        """Add a new token."""
        if self.token_counts is not None:
            self.token_counts.append(token_id)
        if self.constraint is not None and token_id not in self.request.stop_token_ids:
            self.constraint.advance(token_id)

    def counts_after(self, draft: Sequence[int]) -> TokenCounts | None:
        """The token counts if these tokens come next."""
        if self.token_counts is None or not draft:
            return self.token_counts
        return self.token_counts.with_output(draft)
