"""Rewrites the keywords for strings (JSON Schema 2020-12, Validation 6.3 and 7)."""

import re
from typing import Any

from gemma_model.json_schema.document import SchemaLocation
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.rewrite_context import RewriteContext, get_count

STRING_KEYWORDS = frozenset(("pattern", "format", "minLength", "maxLength"))
_DATE = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])"
    "|(?:[02468][048]|[13579][26])00)-02-29)"
)
"""Dates of the proleptic Gregorian calendar (RFC 3339, ``full-date``)."""
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
FORMAT_PATTERNS = {"date": f"^{_DATE}$", "date-time": f"^{_DATE}T{_TIME}$", "time": f"^{_TIME}$"}
"""Patterns of formats that the library enforces less exactly (RFC 3339)."""
ENFORCED_FORMATS = frozenset(
    (*FORMAT_PATTERNS, "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
UNENFORCED_FORMATS = frozenset(
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
"""Formats of the specification (Validation 7.3) that are not enforced. Unknown formats are annotations."""
_LOOKAROUND_OR_BACKREFERENCE = re.compile(r"(?<!\\)(?:\\\\)*(\(\?<?[=!]|\\[1-9])")
"""Matches a pattern that has lookahead, lookbehind or a backreference."""


def rewrite_string(context: RewriteContext, node: dict[str, Any], location: SchemaLocation) -> dict[str, Any]:
    """Rewrite the keywords for strings into those that the grammar library enforces.

    Args:
        context: shared by all keywords of the document.
        node: the schema.
        location: of the schema.

    Returns:
        The rewritten keywords.

    Raises:
        SchemaError: a keyword has an invalid value, or cannot be enforced and the schema is strict.
    """
    lengths = {keyword: get_count(node, keyword, location) for keyword in ("minLength", "maxLength")}
    rewritten: dict[str, Any] = {keyword: value for keyword, value in lengths.items() if value is not None}
    if rewritten and context.skips(min(rewritten), location):
        rewritten = {}
    if "pattern" in node and not context.skips("pattern", location):
        rewritten |= _pattern(context, node["pattern"], location)
    if "format" in node and "pattern" not in rewritten and not context.structure_only:
        rewritten |= _format(context, node["format"], location)
    return rewritten


def _pattern(context: RewriteContext, pattern: Any, location: SchemaLocation) -> dict[str, Any]:
    if not isinstance(pattern, str):
        raise SchemaError("pattern", location.path, "is not a string")
    if _LOOKAROUND_OR_BACKREFERENCE.search(pattern):
        context.unenforced.leave_out(
            "pattern", location.path, "cannot be enforced: it has lookahead or lookbehind"
        )
        return {}
    if context.grammar_error({"type": "string", "pattern": pattern}):
        if reason := _syntax_error(pattern):
            raise SchemaError("pattern", location.path, f"is not a regular expression: {reason}")
        context.unenforced.leave_out(
            "pattern", location.path, "cannot be enforced: its syntax is not supported"
        )
        return {}
    return {"pattern": pattern}


def _syntax_error(pattern: str) -> str:
    """The syntax error of a pattern; empty if the pattern may be valid in ECMA 262.

    Only ECMA 262 has empty character classes. Some of its escapes and group names are not valid in Python.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        in_every_dialect = error.msg.startswith(("missing ), unterminated", "unterminated", "unbalanced"))
        return error.msg if in_every_dialect and "[]" not in pattern and "[^]" not in pattern else ""
    except (RecursionError, OverflowError):
        return ""
    return ""


def _format(context: RewriteContext, name: Any, location: SchemaLocation) -> dict[str, Any]:
    """Rewrite ``format``. By default it is an annotation (Validation 7.2.1), so ``pattern`` has priority."""
    if isinstance(name, str) and name in FORMAT_PATTERNS:
        return {"pattern": FORMAT_PATTERNS[name]}
    if isinstance(name, str) and name in ENFORCED_FORMATS:
        return {"format": name}
    if isinstance(name, str) and name in UNENFORCED_FORMATS:
        context.unenforced.note("format", location.path)
    return {}
