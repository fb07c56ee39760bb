"""The initialisation and the fast norms of the training."""

import pytest
import torch
from demo import model as nano
from demo.norms import use_quick_norms
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nRMSNorm


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return nano.build_tokenizer(seed=1, lessons=600)


@pytest.mark.parametrize("scaled", [True, False])
def test_quick_norms_have_the_same_results(scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gemma3nRMSNorm, "forward", Gemma3nRMSNorm.forward)  # restored after the test
    norm = Gemma3nRMSNorm(24, with_scale=scaled)
    if scaled:
        nn.init.normal_(norm.weight)
    x, towards = torch.randn(3, 5, 24, requires_grad=True), torch.randn(3, 5, 24)
    learnt = [x, *norm.parameters()]

    def run() -> list[torch.Tensor]:
        y = norm(x)
        return [y.detach(), *torch.autograd.grad((y * towards).sum(), learnt)]

    slow = run()
    use_quick_norms()
    for one, other in zip(slow, run(), strict=True):
        torch.testing.assert_close(one, other)


def test_at_first_no_head_looks_at_one_token_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    decoder = nano.build_model(tokenizer).model.language_model
    decoder.set_attn_implementation("eager")
    token_ids = torch.randint(300, 2000, (2, 40))
    said = decoder(input_ids=token_ids, output_attentions=True)
    last = torch.stack([layer[:, :, -1].max(-1).values for layer in said.attentions])  # of 40 tokens
    assert last.mean() < 0.3
    embedded = decoder.embed_tokens(token_ids)
    assert embedded.pow(2).mean().sqrt().item() == pytest.approx(1, abs=0.05)  # as large as a soft token
    assert torch.cosine_similarity(said.last_hidden_state, embedded, dim=-1).mean() > 0.5  # not drowned
