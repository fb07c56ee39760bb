"""What makes the training quick: a beginning that can be learnt from, norms, and several processes."""

import time
from pathlib import Path

import pytest
import torch
from demo import model as nano
from demo.norms import use_quick_norms
from demo.together import Team, together
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nRMSNorm


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return nano.build_tokenizer(seed=1, lessons=600)


@pytest.mark.parametrize("scaled", [True, False])
def test_quick_norms_are_the_same_norms(scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gemma3nRMSNorm, "forward", Gemma3nRMSNorm.forward)  # put back afterwards
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


def test_a_team_adds_its_gradients(tmp_path: Path) -> None:
    together(_learn_along, 2, tmp_path)
    for rank in range(2):
        share, total, gradient, other = torch.load(tmp_path / f"{rank}.pt")
        assert share == [rank, rank + 2, rank + 4]
        assert total == 1
        assert gradient.tolist() == [3, 3]
        assert other.tolist() == [0]


def _learn_along(team: Team, folder: Path) -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    (used * (team.rank + 1)).sum().backward()
    team.add_gradients([used, unused])
    found = (list(team.share(range(6))), team.total(team.rank), used.grad, unused.grad)
    torch.save(found, folder / f"{team.rank}.pt")


def test_a_member_that_fails_ends_the_training() -> None:
    with pytest.raises(Exception, match="no more chalk"):
        together(_fail, 2)


def _fail(team: Team) -> None:
    if team.leads:
        raise ValueError("no more chalk")
    time.sleep(600)
