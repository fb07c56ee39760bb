import io
import json
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from transformers import Gemma3nProcessor
from transformers.audio_utils import load_audio

from gemma_model.engine_types import Media
from gemma_model.media.audio import AudioDecoder
from gemma_wire import InvalidRequest

RATE = 16_000
ENCODINGS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]

Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def decoder(tiny: Path) -> AudioDecoder:
    return AudioDecoder(tiny, 3600)


def _tone(seconds: float, rate: int = RATE, hertz: float = 1000) -> Samples:
    times = np.arange(round(seconds * rate)) / rate
    samples: Samples = (0.4 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)
    return samples


def _encode(samples: Samples, rate: int = RATE, fmt: str = "WAV", subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=fmt) as file:
        for start in range(
            0, len(samples), 65_536
        ):  # libsndfile's Vorbis encoder puts a call's samples on the stack
            file.write(samples[start : start + 65_536])
    return buffer.getvalue()


def _decode(decoder: AudioDecoder, data: bytes, field: str) -> Media:
    (clip,) = decoder.decode(data, field, max_clips=1)
    return clip


def _refusal(decoder: AudioDecoder, data: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        _decode(decoder, data, "audio[3]")
    assert caught.value.field == "audio[3]"
    return caught.value.message


@pytest.mark.parametrize(("fmt", "subtype"), ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_encoding_is_decoded(decoder: AudioDecoder, fmt: str, subtype: str, channels: int) -> None:
    clean = _decode(decoder, _encode(_tone(1)), "audio[0]").features
    samples = np.stack([_tone(1)] * channels, axis=1)
    media = _decode(decoder, _encode(samples, RATE, fmt, subtype), "audio[0]")
    assert media.modality == "audio"
    assert (media.features.dtype.name, media.features.shape[1]) == ("float32", 128)
    assert abs(len(media.features) - len(clean)) <= 3  # ADPCM comes in blocks
    assert (media.features[5:90].argmax(1) == clean[5:90].argmax(1)).all()


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_001, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_sample_rate_becomes_the_extractors(decoder: AudioDecoder, rate: int) -> None:
    clean = _decode(decoder, _encode(_tone(1)), "audio[0]").features
    heard = _decode(decoder, _encode(_tone(1, rate), rate), "audio[0]").features
    assert heard.shape == clean.shape
    assert (heard[5:90].argmax(1) == clean[5:90].argmax(1)).all()
    loudest = clean[5:90].argmax(1)[0]
    assert heard[5:90, loudest] == pytest.approx(clean[5:90, loudest], abs=0.02)


@pytest.mark.parametrize("seconds", [0.04, 0.5, 3.21])
def test_the_numbers_are_those_of_transformers(
    decoder: AudioDecoder, tiny: Path, tmp_path: Path, seconds: float
) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, (round(44_100 * seconds), 2)).astype(np.float32)
    data = _encode(noise, 44_100)
    (tmp_path / "noise.wav").write_bytes(data)
    samples = load_audio(str(tmp_path / "noise.wav"), RATE, backend="soundfile")
    processor = Gemma3nProcessor.from_pretrained(tiny)
    expected = processor(text=processor.audio_token, audio=[samples], return_tensors="np")
    assert expected["input_features_mask"].all()
    assert (expected["input_ids"] == processor.audio_token_id).sum() == 188
    assert np.array_equal(_decode(decoder, data, "audio[0]").features, expected["input_features"][0])


def test_channels_are_averaged(decoder: AudioDecoder) -> None:
    left = np.stack([_tone(0.5), np.zeros_like(_tone(0.5))], axis=1)
    halved = _decode(decoder, _encode(_tone(0.5) / 2), "audio[0]")
    assert _decode(decoder, _encode(left), "audio[0]").digest == halved.digest


def test_the_digest_is_that_of_the_audio_features(decoder: AudioDecoder) -> None:
    low, high = _tone(0.5, hertz=400), _tone(0.5, hertz=800)
    low = np.round(low * 2**15) / 2**15  # so that 16 bits hold it exactly
    files = [_encode(low), _encode(low, RATE, "FLAC", "PCM_16"), _encode(high)]
    digests = [_decode(decoder, data, "audio[0]").digest for data in files]
    assert digests[0] == digests[1] != digests[2]


def test_thirty_seconds_fill_the_soft_tokens(decoder: AudioDecoder) -> None:
    frames = len(_decode(decoder, _encode(_tone(30), subtype="PCM_16"), "audio[0]").features)
    assert -(-frames // 16) == 188


def test_silence_is_accepted(decoder: AudioDecoder) -> None:
    features = _decode(decoder, _encode(np.zeros(RATE, np.float32)), "audio[0]").features
    assert np.ptp(features) == 0


def test_audio_may_exceed_the_limit_by_the_padding_of_an_encoder_only(tiny: Path) -> None:
    decoder = AudioDecoder(tiny, 2)
    whole = _decode(decoder, _encode(_tone(2)), "audio[0]")
    assert _decode(decoder, _encode(_tone(2.09)), "audio[0]").digest == whole.digest
    assert _refusal(decoder, _encode(_tone(2.2))) == "is 2.20 seconds long; the limit is 2 seconds"


@pytest.mark.parametrize(
    ("fmt", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")]
)
def test_much_silence_in_little_space_are_refused_by_their_header(
    decoder: AudioDecoder, fmt: str, subtype: str
) -> None:
    data = _encode(np.zeros(RATE * 60, np.float32), RATE, fmt, subtype)
    assert _refusal(decoder, data) == (
        "is 60.00 seconds long, which needs 2 clips of at most 30 seconds, 376 tokens; "
        "the limit for the rest of this request is 1"
    )


def test_no_setting_exceeds_the_audio_limit_of_the_checkpoint(tiny: Path, tmp_path: Path) -> None:
    assert AudioDecoder(tiny, 1e9).clip_seconds == 30
    folder = tmp_path / "short of hearing"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["audio_soft_tokens_per_image"] = 25
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    decoder = AudioDecoder(folder, 30)
    frames = len(_decode(decoder, _encode(_tone(decoder.clip_seconds)), "audio[0]").features)
    assert frames == 25 * 16
    assert decoder.clip_seconds == pytest.approx(4.03, abs=0.01)


def _flac_that_says(length: int, truly: int) -> bytes:
    """A FLAC file with the length in its STREAMINFO overwritten: 36 bits at the end of its byte 21."""
    data = bytearray(_encode(_tone(truly / RATE), RATE, "FLAC", "PCM_16"))
    data[21:26] = bytes([data[21] & 0xF0 | length >> 32]) + struct.pack(">I", length & 0xFFFFFFFF)
    return bytes(data)


def test_a_wrong_length_in_the_header_does_not_bypass_the_limit(tiny: Path) -> None:
    decoder = AudioDecoder(tiny, 1)
    assert "has no length in its header" in _refusal(decoder, _flac_that_says(0, RATE))
    assert len(_decode(decoder, _flac_that_says(RATE, 3 * RATE), "audio[0]").features) <= 97
    assert "seconds long; the limit is" in _refusal(decoder, _flac_that_says(2**36 - 1, RATE))
    assert "is truncated, damaged" in _refusal(decoder, _flac_that_says(RATE, RATE // 2))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF024])
def test_a_wav_written_to_a_pipe_is_decoded_completely(decoder: AudioDecoder, size: int) -> None:
    data = bytearray(_encode(_tone(0.5), subtype="PCM_16"))
    data[4:8] = struct.pack("<I", size)
    whole = _decode(decoder, bytes(data), "audio[0]")
    data[40:44] = struct.pack("<I", min(size, 0xFFFFFFFF) or 0xFFFFFFFF)
    assert _decode(decoder, bytes(data), "audio[0]").digest == whole.digest


@pytest.mark.parametrize(("fmt", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")])
def test_a_file_cut_short_is_refused(decoder: AudioDecoder, fmt: str, subtype: str) -> None:
    data = _encode(_tone(1), RATE, fmt, subtype)
    assert "is truncated" in _refusal(decoder, data[: len(data) // 2])


@pytest.mark.parametrize(("fmt", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_a_truncated_stream_is_decoded_up_to_its_end(decoder: AudioDecoder, fmt: str, subtype: str) -> None:
    noise = np.random.default_rng(2).normal(0, 0.2, 3 * RATE).astype(np.float32)
    data = _encode(noise, RATE, fmt, subtype)
    whole, half = (
        len(_decode(decoder, part, "audio[0]").features) for part in (data, data[: len(data) // 2])
    )
    assert 0 < half < whole


@pytest.mark.parametrize("where", [0, RATE // 2, -1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_samples_that_are_not_finite_are_refused(
    decoder: AudioDecoder, where: int, value: float, rate: int
) -> None:
    samples = np.stack([_tone(1, rate)] * 2, axis=1)
    samples[where, 1] = value
    assert "not finite numbers" in _refusal(decoder, _encode(samples, rate))


def test_numbers_that_are_too_large_to_add_are_refused(decoder: AudioDecoder) -> None:
    assert "a sample of 3e+38" in _refusal(decoder, _encode(np.full((RATE, 2), 3e38, np.float32)))


@pytest.mark.parametrize("value", [40_000.0, 1e9, 3e38, -3e38])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_samples_far_beyond_full_scale_are_refused(decoder: AudioDecoder, value: float, rate: int) -> None:
    samples = _tone(1, rate)
    samples[rate // 2 : rate // 2 + 50] = value
    assert "the limit is 32,768, and full scale is 1" in _refusal(decoder, _encode(samples, rate))


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1.0, 8.0, 32_767.0])
def test_accepted_audio_has_finite_features(decoder: AudioDecoder, scale: float) -> None:
    samples = np.sign(_tone(1)) * np.float32(scale)
    assert np.isfinite(_decode(decoder, _encode(samples), "audio[0]").features).all()


def test_audio_of_one_window_is_accepted(decoder: AudioDecoder) -> None:
    for samples in (512, 513, 640):
        assert _decode(decoder, _encode(_tone(1)[:samples]), "audio[0]").features.shape == (1, 128)


@pytest.mark.parametrize("samples", [0, 1, 511])
def test_audio_shorter_than_one_window_is_refused(decoder: AudioDecoder, samples: int) -> None:
    given = f"{samples} samples ({samples / RATE:g} seconds) at 16,000 samples per second"
    says = f"has {given}; at least 512 (0.032 seconds) are required"
    assert _refusal(decoder, _encode(_tone(1)[:samples])) == says


def test_too_many_channels_or_samples_a_second_are_refused(decoder: AudioDecoder) -> None:
    assert _decode(decoder, _encode(np.zeros((192_000, 8), np.float32), 192_000), "audio[0]")
    many = _encode(np.zeros((1_000, 32), np.float32), 192_000)
    assert _refusal(decoder, many) == "has 32 channels; the limit is 8"
    limits = "the limits are 4,000 and 192,000"
    assert _refusal(decoder, _encode(_tone(0.1), 384_000)) == f"has 384,000 samples per second; {limits}"
    assert _refusal(decoder, _encode(_tone(0.1), 1)) == f"has 1 samples per second; {limits}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\x24\0\0\0WEBPVP8 ",
        b"OggS" + bytes(100),
        b"fLaC" + bytes(100),
        b"ID3" + bytes(100),
        b"\xff\xfb" + bytes(1000),
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"\0\0\0\x20ftypM4A ",
    ],
)
def test_invalid_audio_is_refused_with_the_formats(decoder: AudioDecoder, data: bytes) -> None:
    assert "not audio in a supported format: WAV, FLAC, OGG, MP3" in _refusal(decoder, data)


@pytest.mark.parametrize(("fmt", "subtype"), [("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16")])
def test_other_formats_are_refused_even_behind_an_mp3s_tag(
    decoder: AudioDecoder, fmt: str, subtype: str
) -> None:
    data = _encode(_tone(0.1), RATE, fmt, subtype)
    assert "supported format" in _refusal(decoder, data)
    assert "supported format" in _refusal(decoder, b"ID3\x03\0\0\0\0\0\0" + data)


def test_several_threads_may_decode(decoder: AudioDecoder) -> None:
    files = [_encode(_tone(0.5, 44_100, 300 + 100 * i), 44_100) for i in range(8)]
    alone = [_decode(decoder, data, "audio[0]").digest for data in files]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda data: _decode(decoder, data, "audio[0]").digest, files)) == alone


def test_long_audio_is_cut_at_its_quietest_places(decoder: AudioDecoder) -> None:
    samples = np.concatenate(
        [_tone(24), np.zeros(RATE // 2, np.float32), _tone(26), 0.1 * _tone(1), _tone(8)]
    )
    clips = decoder.decode(_encode(samples), "audio[0]", max_clips=3)
    seconds = [round(len(clip.features) / 100, 1) for clip in clips]
    assert sum(seconds) == pytest.approx(59.5, abs=0.2)
    assert seconds[0] == pytest.approx(24.25, abs=0.3)
    assert seconds[1] == pytest.approx(26.75, abs=0.8)


@pytest.mark.parametrize(("seconds", "clips", "tokens"), [(31, 2, "376"), (100, 4, "752")])
def test_audio_that_needs_too_many_clips_is_refused_with_the_number_of_tokens(
    decoder: AudioDecoder, seconds: float, clips: int, tokens: str
) -> None:
    message = _refusal(decoder, _encode(_tone(seconds)))
    assert f"needs {clips} clips of at most 30 seconds, {tokens} tokens" in message
    assert "the limit for the rest of this request is 1" in message


def test_a_file_over_the_limit_is_refused_whatever_the_number_of_clips(tiny: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"is 41\.00 seconds long; the limit is 40 seconds"):
        AudioDecoder(tiny, 40).decode(_encode(_tone(41)), "audio[0]", max_clips=9)
