"""The model card of the demo model: a description and its evaluation."""

from collections.abc import Mapping
from pathlib import Path

CARD = Path(__file__).with_name("card.md")
NOT_YET = "`make demo-eval` has not been run."
EXPLAINED = """Exact match on held-out generated data, through the complete server at
temperature 0: an output counts as right if it is exactly the expected text.

| skill | right | of |
| --- | --- | --- |
"""


def write_card(checkpoint: Path, results: Mapping[str, tuple[int, int]] | None = None) -> None:
    """Write ``README.md`` into the folder; the results by skill are right answers and questions."""
    evaluation = NOT_YET
    if results:
        rows = (f"| {skill} | {right / of:.1%} | {of} |" for skill, (right, of) in results.items())
        evaluation = EXPLAINED + "\n".join(rows)
    text = CARD.read_text(encoding="utf-8").replace("EVALUATION", evaluation)
    (checkpoint / "README.md").write_text(text, encoding="utf-8")
