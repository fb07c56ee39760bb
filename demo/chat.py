"""Chat: every skill of the demo model that needs neither a picture nor a sound."""

import random

from demo.conversation import Conversation
from demo.talk import calling, copying, facts, forms, several, small, unknown
from demo.talk.wording import Talk, single

SKILLS: dict[str, Talk] = {
    "greeting": single("greeting", small.greeting),
    "identity": single("identity", small.identity),
    "abilities": single("abilities", small.abilities),
    "real_model": single("real_model", small.real_model),
    "thanks": single("thanks", small.thanks),
    "goodbye": single("goodbye", small.goodbye),
    "small_talk": single("small_talk", small.small_talk),
    "joke": single("joke", small.joke),
    "sums": single("sums", facts.sums),
    "days": single("days", facts.days),
    "colours": single("colours", facts.colours),
    "count": single("count", facts.count),
    "repeat": single("repeat", copying.repeat),
    "story": single("story", copying.story),
    "memory": several.memory,
    "several_turns": several.several_turns,
    "styled": several.styled,
    "unknown": single("unknown", unknown.unknown),
    "no_image": single("no_image", unknown.no_image),
    "no_sound": single("no_sound", unknown.no_sound),
    "json": single("json", forms.json_form),
    "tools": calling.with_tools,
    "chat_with_tools": calling.chat_with_tools,
}
"""Generator of conversations, by skill."""

WEIGHTS: dict[str, int] = {
    "greeting": 4,
    "identity": 4,
    "abilities": 2,
    "real_model": 2,
    "thanks": 2,
    "goodbye": 2,
    "small_talk": 2,
    "joke": 1,
    "sums": 14,
    "days": 5,
    "colours": 6,
    "count": 2,
    "repeat": 14,
    "story": 4,
    "memory": 6,
    "several_turns": 12,
    "styled": 12,
    "unknown": 9,
    "no_image": 4,
    "no_sound": 3,
    "json": 10,
    "tools": 10,
    "chat_with_tools": 6,
}
"""Relative frequency of each skill in ``talk``."""


def talk(rng: random.Random) -> Conversation:
    """A conversation of a random skill."""
    (skill,) = rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))
    return SKILLS[skill](rng)
