"""Keywords about strings."""

import re
from typing import Any

from gemma_model.json_schema.document import SchemaLocation
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.rewrite_context import RewriteContext, count

ABOUT_STRINGS = frozenset(("pattern", "format", "minLength", "maxLength"))
_DAYS = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])"
    "|(?:[02468][048]|[13579][26])00)-02-29)"
)
"""Of the proleptic Gregorian calendar."""
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
PATTERNS = {"date": f"^{_DAYS}$", "date-time": f"^{_DAYS}T{_TIME}$", "time": f"^{_TIME}$"}
"""Of formats that the library knows less exactly."""
ENFORCED = frozenset((*PATTERNS, "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))
STANDARD = frozenset(
    (
        "idn-email",
        "idn-hostname",
        "uri-reference",
        "iri",
        "iri-reference",
        "uri-template",
        "json-pointer",
        "regex",
        "relative-json-pointer",
    )
)
"""Formats of the specification that are not enforced; any other is an annotation."""
_LOOKS = re.compile(r"(?<!\\)(?:\\\\)*(\(\?<?[=!]|\\[1-9])")
"""What looks around or back in a pattern."""


def rewrite_string(context: RewriteContext, node: dict[str, Any], at: SchemaLocation) -> dict[str, Any]:
    """The keywords about strings, as the library may have them.

    Args:
        context: the way so far.
        node: the schema.
        at: its place.

    Raises:
        SchemaError: about a keyword that is wrong, or cannot be enforced in a strict schema.
    """
    lengths = {word: count(node, word, at) for word in ("minLength", "maxLength")}
    kept: dict[str, Any] = {word: value for word, value in lengths.items() if value is not None}
    if kept and context.skips(min(kept), at):
        kept = {}
    if "pattern" in node and not context.skips("pattern", at):
        kept |= _pattern(context, node["pattern"], at)
    if "format" in node and "pattern" not in kept and not context.structure_only:
        kept |= _format(context, node["format"], at)
    return kept


def _pattern(context: RewriteContext, pattern: Any, at: SchemaLocation) -> dict[str, Any]:
    if not isinstance(pattern, str):
        raise SchemaError("pattern", at.path, "is not a string")
    if _LOOKS.search(pattern):
        context.unenforced.leave_out("pattern", at.path, "cannot be enforced: it has lookahead or lookbehind")
        return {}
    if context.grammar_error({"type": "string", "pattern": pattern}):
        if reason := _broken(pattern):
            raise SchemaError("pattern", at.path, f"is not a regular expression: {reason}")
        context.unenforced.leave_out("pattern", at.path, "cannot be enforced: its syntax is not supported")
        return {}
    return {"pattern": pattern}


def _broken(pattern: str) -> str:
    """What is wrong with a pattern in every dialect; nothing where dialects may differ.

    An empty class is one in ECMA 262 alone, and so are some escapes and names of groups.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        everywhere = error.msg.startswith(("missing ), unterminated", "unterminated", "unbalanced"))
        return error.msg if everywhere and "[]" not in pattern and "[^]" not in pattern else ""
    except (RecursionError, OverflowError):
        return ""
    return ""


def _format(context: RewriteContext, name: Any, at: SchemaLocation) -> dict[str, Any]:
    """By default a format is an annotation, so it is ignored next to a pattern."""
    if isinstance(name, str) and name in PATTERNS:
        return {"pattern": PATTERNS[name]}
    if isinstance(name, str) and name in ENFORCED:
        return {"format": name}
    if isinstance(name, str) and name in STANDARD:
        context.unenforced.note("format", at.path)
    return {}
