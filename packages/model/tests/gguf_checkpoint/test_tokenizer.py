import json
from pathlib import Path

from tokenizers import Tokenizer

from gemma_model.gguf_checkpoint.tokenizer import build_tokenizer
from gemma_wire.gguf import GGUF, Value

PIECES = [  # piece, score, type: 1 normal, 3 control, 4 defined by a user, 6 byte
    ("<pad>", 0.0, 3),
    ("<bos>", 0.0, 3),
    ("<unk>", 0.0, 2),
    ("<unused0>", -1000.0, 3),
    ("<start_of_turn>", -1000.0, 4),
    ("<b>", -1000.0, 4),
    ("  ", -1000.0, 4),
    ("<0xC3>", 0.0, 6),
    ("<0xBC>", 0.0, 6),
    ("ab", -0.0, 1),
    ("▁a", -1.0, 1),
    ("abc", -2.0, 1),
    ("bc", -3.0, 1),
    ("▁", -10.0, 1),
    ("a", -11.0, 1),
    ("b", -12.0, 1),
    ("c", -13.0, 1),
]


def model(**changes: Value) -> GGUF:
    tokens, scores, types = zip(*PIECES, strict=True)
    arrays: dict[str, Value] = {"tokens": tokens, "scores": scores, "token_type": types, "model": "llama"}
    metadata = {f"tokenizer.ggml.{key}": value for key, value in (arrays | changes).items()}
    return GGUF((Path("model.gguf"),), metadata, {})


def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(json.dumps(build_tokenizer(model())))


def test_merges_are_in_the_order_of_the_scores() -> None:
    merges = build_tokenizer(model())["model"]["merges"]
    assert merges == [["▁", "▁"], ["a", "b"], ["▁", "a"], ["ab", "c"], ["a", "bc"], ["b", "c"]]


def test_ids_and_text() -> None:
    ids = {piece: id_ for id_, (piece, _, _) in enumerate(PIECES)}
    encoded = tokenizer().encode("abc  a<b> bc<start_of_turn>ü<unused0>z", add_special_tokens=False)
    assert encoded.ids == [
        ids["abc"],
        ids["  "],
        ids["a"],
        ids["<b>"],
        ids["▁"],
        ids["bc"],
        ids["<start_of_turn>"],
        ids["<0xC3>"],
        ids["<0xBC>"],
        ids["<unused0>"],
        ids["<unk>"],
    ]
    assert tokenizer().decode(encoded.ids[:9]) == "abc  a<b> bcü"
    assert tokenizer().encode("a").ids == [ids["<bos>"], ids["a"]]


def test_which_tokens_are_special() -> None:
    added = {token["content"]: token["special"] for token in build_tokenizer(model())["added_tokens"]}
    assert added == {
        "<pad>": True,
        "<bos>": True,
        "<unk>": True,
        "<unused0>": False,
        "<start_of_turn>": True,
        "<b>": False,
        "▁▁": False,
    }


def test_merges_of_the_file_itself() -> None:
    built = build_tokenizer(model(model="gpt2", merges=["▁ a", "a b"], scores=()))
    assert built["model"]["merges"] == [["▁", "a"], ["a", "b"]]
