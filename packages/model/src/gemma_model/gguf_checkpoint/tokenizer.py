"""``tokenizer.json`` of Gemma, from the metadata of a GGUF file.

The file has the vocabulary of a SentencePiece model: pieces, their scores and their types. ``tokenizers``
needs the list of merges instead: every way to join two pieces to a third, in the order of its score.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import groupby
from typing import Any, Final

from gemma_wire.gguf import GGUF, Value, refuse

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Types of pieces."""
SPECIAL: Final = re.compile(r"<(start|end)_of_\w+>|<\w+_soft_token>|<(pad|bos|eos|unk|mask)>")
"""Control tokens. The other pieces of type CONTROL have no meaning, such as ``<unused0>``."""
SPACE: Final = "▁"

Merge = tuple[str, str]


def build_tokenizer(model: GGUF) -> dict[str, Any]:
    """The content of ``tokenizer.json``.

    Raises:
        InvalidRequest: the file has no tokenizer, or not one of Gemma.
    """
    kind = model.metadata.get("tokenizer.ggml.model")
    tokens = _texts(model, "tokenizer.ggml.tokens")
    types = _numbers(model, "tokenizer.ggml.token_type", len(tokens))
    pieces = [_piece(token, type_) for token, type_ in zip(tokens, types, strict=True)]
    if kind == "llama":
        merges = _merges(pieces, _scores(model, types), types)
    elif kind == "gpt2":
        merges = [_pair(model, merge) for merge in _texts(model, "tokenizer.ggml.merges")]
    else:
        raise refuse(
            model.files[0], f"has tokenizer.ggml.model {kind!r}; only 'llama' and 'gpt2' are supported"
        )
    return _tokenizer(pieces, merges, types)


def with_tokens(tokenizer: dict[str, Any], tokens: Mapping[int, str]) -> dict[str, Any]:
    """The same with control tokens that the file may have left out, or replaced by placeholders.

    Args:
        tokenizer: the content of ``tokenizer.json``.
        tokens: the control tokens by their ids.
    """
    vocab = tokenizer["model"]["vocab"]
    missing = {id_: token for id_, token in tokens.items() if token not in vocab}
    kept = {piece: id_ for piece, id_ in vocab.items() if id_ not in missing}
    added = [token for token in tokenizer["added_tokens"] if token["id"] not in missing]
    return tokenizer | {
        "added_tokens": [*added, *(_added_token(id_, token) for id_, token in missing.items())],
        "model": tokenizer["model"] | {"vocab": kept | {token: id_ for id_, token in missing.items()}},
    }


def token_id(model: GGUF, name: str) -> int | None:
    """The id of a token with a role, such as ``eos``."""
    value = model.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _piece(token: str, type_: float) -> str:
    """The piece as in the vocabulary; the file has spaces in pieces of these types."""
    return token.replace(" ", SPACE) if type_ in (CONTROL, USER_DEFINED) else token


def _scores(model: GGUF, types: Sequence[float]) -> list[float]:
    """The score of each piece; those that a user defined come first, whatever the file says."""
    scores = _numbers(model, "tokenizer.ggml.scores", len(types))
    return [0.0 if type_ == USER_DEFINED else score for type_, score in zip(types, scores, strict=True)]


def _merges(pieces: Sequence[str], scores: Sequence[float], types: Sequence[float]) -> list[Merge]:
    """All merges, in the order of transformers' converter: by score, then by the lengths of both parts."""
    known = set(pieces)
    merges: list[Merge] = []
    numbers = sorted((i for i, type_ in enumerate(types) if type_ != CONTROL), key=lambda i: -scores[i])
    for _, group in groupby(numbers, key=scores.__getitem__):
        found = [merge for i in group for merge in _splits(pieces[i], known)]
        merges += sorted(found, key=lambda merge: (-len(merge[0]), -len(merge[1])))
    return merges


def _splits(piece: str, known: Set[str]) -> Iterator[Merge]:
    """The ways to make a piece of two."""
    for at in range(1, len(piece)):
        if piece[:at] in known and piece[at:] in known:
            yield piece[:at], piece[at:]


def _pair(model: GGUF, merge: str) -> Merge:
    left, separator, right = merge.partition(" ")
    if not separator:
        raise refuse(model.files[0], f"has the merge {merge!r} in 'tokenizer.ggml.merges', not two pieces")
    return left, right


def _tokenizer(pieces: Sequence[str], merges: Sequence[Merge], types: Sequence[float]) -> dict[str, Any]:
    """The structure of Gemma's own file."""
    bos = {"id": "<bos>", "ids": [pieces.index("<bos>")] if "<bos>" in pieces else [], "tokens": ["<bos>"]}
    space, replaced = {"String": SPACE}, {"String": " "}
    decoders = [
        {"type": "Replace", "pattern": space, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(id_, piece)
            for id_, (piece, type_) in enumerate(zip(pieces, types, strict=True))
            if type_ in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": {"type": "Replace", "pattern": replaced, "content": SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": replaced,
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _sequence("A", 0),
            "pair": [*_sequence("A", 0), *_sequence("B", 1)],
            "special_tokens": {"<bos>": bos},
        },
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(pieces, merges),
    }


def _sequence(name: str, type_id: int) -> list[dict[str, Any]]:
    return [
        {"SpecialToken": {"id": "<bos>", "type_id": type_id}},
        {"Sequence": {"id": name, "type_id": type_id}},
    ]


def _bpe(pieces: Sequence[str], merges: Sequence[Merge]) -> dict[str, Any]:
    vocab: dict[str, int] = {}
    for id_, piece in enumerate(pieces):
        vocab.setdefault(piece, id_)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": [list(merge) for merge in merges],
    }


def _added_token(id_: int, piece: str) -> Mapping[str, Any]:
    return {
        "id": id_,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": SPECIAL.fullmatch(piece) is not None,
    }


def _array(model: GGUF, key: str) -> Sequence[Value]:
    value = model.metadata.get(key)
    if value is None or isinstance(value, int | float | str) or not len(value):
        raise refuse(
            model.files[0],
            f"has no array {key!r}; put the tokenizer.json of the model into its folder",
        )
    return value


def _texts(model: GGUF, key: str) -> list[str]:
    texts = [value for value in _array(model, key) if isinstance(value, str)]
    if len(texts) != len(_array(model, key)):
        raise refuse(model.files[0], f"has {key!r}, which is not an array of text")
    return texts


def _numbers(model: GGUF, key: str, count: int) -> list[float]:
    numbers = [value for value in _array(model, key) if isinstance(value, int | float)]
    if len(numbers) != count:
        raise refuse(model.files[0], f"has {len(numbers):,} numbers in {key!r} for {count:,} tokens")
    return numbers
