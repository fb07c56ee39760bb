"""A small tokenizer with Gemma's control tokens and chat template."""

import json
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT_VOCAB = 512  # then the ids of the vision embedder, then those of the audio embedder
MM_VOCAB = 16

CONTROLS = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
MULTIMODAL = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
    "audio_token": "<audio_soft_token>",
}
TURNS = ("<start_of_turn>", "<end_of_turn>")
CORPUS = """The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs!
user model system Hello, how are you? I am fine, thank you. What do you see in this image?
I see a red circle, a blue square and a green triangle. Tell me a story: once upon a time there was
a small house by the sea. How many shapes are there? 0 1 2 3 4 5 6 7 8 9 10.
{"name": "value", "a": [1, 2.5, true], "b": {"c": null}}
""".splitlines()

CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' -}}
    {{- first_user_prefix if loop.first else '' -}}
    {%- if message['content'] is string -%}
        {{- message['content'] | trim -}}
    {%- else -%}
        {%- for part in message['content'] -%}
            {%- if part['type'] == 'image' -%}
                {{- '<image_soft_token>' -}}
            {%- elif part['type'] == 'audio' -%}
                {{- '<audio_soft_token>' -}}
            {%- else -%}
                {{- part['text'] | trim -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\n' -}}
{%- endif -%}
"""


def build_tokenizer(
    corpus: Sequence[str] = CORPUS,
    text_vocab: int = TEXT_VOCAB,
    mm_vocab: int = MM_VOCAB,
    *,
    words: bool = False,
    padded_vocab: int | None = None,
) -> PreTrainedTokenizerFast:
    """A byte-fallback BPE tokenizer with Gemma's control tokens and Gemma's handling of spaces.

    Args:
        corpus: what it learns its tokens from; must have enough of them.
        text_vocab: tokens of text, control tokens among them.
        mm_vocab: of each of the two embedders, after them.
        words: no token holds letters and anything else, and every digit is a token.
        padded_vocab: tokens of text with those that no text is encoded to, ``<filler…>``; ``None``: none.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    split: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split(Regex("▁"), "merged_with_next")]
    if words:
        split.append(pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}▁]"), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split) if words else split[0]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    reserved = [*CONTROLS.values(), *(f"<unused{i}>" for i in range(3)), *TURNS]
    newlines = ["\n" * n for n in range(1, 6)]
    image_audio = [MULTIMODAL["boi_token"], MULTIMODAL["boa_token"]]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    fixed = [*reserved, *newlines, *image_audio, *byte_tokens]
    trainer = trainers.BpeTrainer(
        vocab_size=text_vocab, special_tokens=fixed, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(corpus, trainer)
    learned = json.loads(tokenizer.to_str())
    assert len(learned["model"]["vocab"]) == text_vocab, "the corpus must fill the vocabulary"
    for i in range(text_vocab, padded_vocab or text_vocab):
        learned["model"]["vocab"][f"<filler{i}>"] = i
    tail = {0: "<end_of_image>", 1: "<image_soft_token>"}
    tail |= {mm_vocab: "<end_of_audio>", mm_vocab + 1: "<audio_soft_token>"}
    plain = {*newlines, *byte_tokens, *reserved[5:-2]}
    added = [token for token in learned["added_tokens"] if token["content"] not in byte_tokens]
    for token in added:
        token["special"] = token["content"] not in plain
    learned["added_tokens"] = added
    restored = Tokenizer.from_str(json.dumps(learned))
    for i in range(2 * mm_vocab):
        content = tail.get(i, f"<mm_unused{i}>")
        restored.add_tokens([AddedToken(content, special=i in tail, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=restored,
        chat_template=CHAT_TEMPLATE,
        add_bos_token=True,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        extra_special_tokens=MULTIMODAL,
        **CONTROLS,
    )
