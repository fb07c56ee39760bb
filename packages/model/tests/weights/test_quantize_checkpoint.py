"""Written checkpoints, read by our loader and by transformers with the package ``compressed-tensors``."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Gemma3nForConditionalGeneration

from gemma_model.checkpoint import read_config
from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.settings import Settings
from gemma_model.weights import quantize_checkpoint as module
from gemma_model.weights.open_weights import open_folder
from gemma_model.weights.progress_bar import ProgressBar
from gemma_model.weights.quantization_recipe import Bits, Recipe, kind_of
from gemma_model.weights.quantize import can_quantize, quantize
from gemma_model.weights.quantize_checkpoint import main, quantize_checkpoint
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_wire import InvalidRequest

FORMATS = ["int8", "int4"]
IDS = [2, *range(5, 25)]


def dense(folder: Path) -> dict[str, Tensor]:
    """The tensors as our loader decodes them."""
    loaded = {key: tensor.load() for key, tensor in open_folder(folder).items()}
    return {
        key: tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
        for key, tensor in loaded.items()
    }


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def settings(**others: Any) -> Settings:
    return Settings(max_num_seqs=1, compile="off", towers="none", device="cpu", **others)


@pytest.fixture(scope="module", params=FORMATS)
def written(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    target = tmp_path_factory.mktemp("quantized") / "made" / "copy"
    main([str(tiny), str(target), "--format", request.param])
    return target, request.param


def test_matrices_are_those_of_quantize(tiny: Path, written: tuple[Path, str]) -> None:
    folder, name = written
    original = load_file(tiny / "model.safetensors")
    decoded = dense(folder)
    assert decoded.keys() == original.keys()
    outside = {"embed_tokens", "embed_tokens_per_layer", "per_layer_model_projection"}
    for key, tensor in original.items():
        kind = kind_of(key)
        if kind is None or not can_quantize(tuple(tensor.shape)):
            assert torch.equal(decoded[key], tensor), key
        else:
            bits: Bits = 4 if name == "int4" and kind not in outside else 8
            assert torch.equal(decoded[key], quantize(tensor, bits).dequantize()), key


def test_what_stays_as_it_is(tiny: Path) -> None:
    kept = {key for key in load_file(tiny / "model.safetensors") if kind_of(key) is None}
    for part in ("altup", "laurel", "norm", "vision_tower", "audio_tower", "embed_vision", "embed_audio"):
        assert any(part in key for key in kept), part
    assert not any("_proj." in key for key in kept if ".layers." in key and "tower" not in key)


def test_other_files_are_copied(tiny: Path, written: tuple[Path, str]) -> None:
    folder, _ = written
    assert names(folder) == names(tiny)
    assert (folder / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    assert {**read_config(folder), "quantization_config": None} == {
        **read_config(tiny),
        "quantization_config": None,
    }
    assert names(folder.parent) == {"copy"}, "nothing unfinished remains"


def test_the_engine_runs_it_as_if_it_had_quantised_at_load(tiny: Path, written: tuple[Path, str]) -> None:
    folder, name = written
    logits = []
    for source, others in ((folder, {}), (tiny, {"quantize": name, "ple": "device"})):
        loaded = LoadedRunner(source, settings(**others))
        with torch.inference_mode():
            cache = KVCache(loaded.model.cache_spec, 1, 64, 0)
            x, batches = loaded.model.embed(IDS), [Batch([0], [0], len(IDS))]
            logits.append(loaded.model.prefill(IDS, x, batches, cache, 1))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)


def test_transformers_reads_it_if_the_embeddings_stay(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="needs compressed-tensors")
    folder = tmp_path / "copy"
    main([str(tiny), str(folder), "--format=int4", "--embedding=none", "--per-layer-table=none"])
    ids = torch.tensor([[2, 5, 6, 7, 8, 9, 30]])
    expected = Gemma3nForConditionalGeneration.from_pretrained(tiny).eval()
    state = expected.state_dict()
    with torch.inference_mode():
        for key, tensor in dense(folder).items():
            state[key].copy_(tensor)
        theirs, missing = Gemma3nForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        assert not any(missing.values())
        difference = theirs.eval()(input_ids=ids).logits - expected(input_ids=ids).logits
    assert difference.abs().max() == 0


def test_shards(
    tiny: Path, written: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, name = written
    monkeypatch.setattr(module, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(module, "PART_ELEMENTS", 1000)
    main([str(tiny), str(tmp_path / "copy"), "--format", name])
    shards = sorted((tmp_path / "copy").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    one, many = dense(folder), dense(tmp_path / "copy")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[key], many[key]) for key in one)
    index = json.loads((tmp_path / "copy" / "model.safetensors.index.json").read_text())
    stored = [load_file(shard) for shard in shards]
    assert index["metadata"]["total_size"] == sum(t.nbytes for tensors in stored for t in tensors.values())


def test_the_report(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tiny), str(tmp_path / "copy"), "--format=int4", "--embedding=int4", "--per-layer-table=none"])
    output = capsys.readouterr()
    report = {line.split()[0]: line.split()[1:] for line in output.out.splitlines()}
    assert report["q_proj"][0] == "int4"
    assert 6 < float(report["q_proj"][2].rstrip("%")) < 9
    assert report["per_layer_model_projection"][0] == "int8"
    assert float(report["per_layer_model_projection"][2].rstrip("%")) < 0.6
    assert report["embed_tokens"][0] == "int4"
    assert "embed_tokens_per_layer" not in report
    assert report["wrote"]
    assert "100 %" in output.err


def test_rows_that_are_no_complete_groups_stay(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    tensors = load_file(source / "model.safetensors")
    key = next(key for key in tensors if key.endswith("layers.1.self_attn.q_proj.weight"))
    tensors[key] = tensors[key][:, :-1].contiguous()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    main([str(source), str(tmp_path / "copy"), "--format=int8"])
    written = load_file(tmp_path / "copy" / "model.safetensors")
    assert torch.equal(written[key], tensors[key])
    assert key.replace("layers.1", "layers.0") in written, "the configuration names kinds of matrices"
    assert key.replace("q_proj.weight", "k_proj.weight_packed") in written


def write(source: Path, target: Path) -> None:
    quantize_checkpoint(source, target, Recipe(8), ProgressBar())


def test_a_target_with_files_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    write(tiny, tmp_path / "copy")  # an empty folder is fine
    before = names(tmp_path / "copy")
    with pytest.raises(InvalidRequest, match="exists and is not an empty folder"):
        write(tiny, tmp_path / "copy")
    assert names(tmp_path / "copy") == before
    with pytest.raises(InvalidRequest, match="is quantised already"):
        write(tmp_path / "copy", tmp_path / "again")


def test_a_disk_that_is_too_small_is_refused_first(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InvalidRequest, match=r"needs 0\.0 GB, but .* has 0\.0 GB free"):
        write(tiny, tmp_path / "copy")
    assert names(tmp_path) == set()


def test_nothing_remains_after_an_error(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny, source)
    tensors = load_file(source / "model.safetensors")
    next(tensor for key, tensor in tensors.items() if "layers.0.self_attn.v_proj" in key)[0, 0] = float("nan")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvalidRequest, match=r"v_proj.weight' has infinity or NaN"):
        write(source, tmp_path / "copy")
    assert names(tmp_path) == {"source"}


def test_errors_are_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: MODEL_NAME: cannot read .*config\.json"):
        main([str(tmp_path / "nothing"), str(tmp_path / "copy"), "--format=int8"])


@pytest.mark.parametrize("name", FORMATS)
def test_a_quantised_checkpoint_is_not_quantised_at_load(written: tuple[Path, str], name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"the checkpoint is quantised already: int[48], groups of 32"):
        LoadedRunner(written[0], settings(quantize=name))


@pytest.mark.parametrize(("name", "said"), [("int4", "int4 and int8"), ("int8", "int8")])
def test_the_engine_says_what_matrices_are_quantised_to(tiny: Path, name: str, said: str) -> None:
    assert LoadedRunner(tiny, settings(quantize=name)).dtype_name == f"float32, quantised to {said}"
    assert LoadedRunner(tiny, settings()).dtype_name == "float32"
