"""HTML that no Gradio component provides, from the macros of ``page.html``."""

import math
from pathlib import Path
from typing import Any, Final

from jinja2 import ChainableUndefined, Environment

_ENVIRONMENT: Final = Environment(autoescape=True, undefined=ChainableUndefined)
_ENVIRONMENT.globals["exp"] = lambda logprob: math.exp(min(0, logprob))
_TEXT: Final = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
HTML: Final[Any] = _ENVIRONMENT.from_string(_TEXT).module
"""The macros by name."""
