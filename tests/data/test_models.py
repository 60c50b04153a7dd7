"""Models: random ones are the same for a seed, local ones survive, bad ones leave nothing."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from quark.config import ModelSource
from quark.core.files import sha256
from quark.data import ResourceError, fetch_model

TINY = {"layers": 1, "width": 8, "heads": 2, "context": 32, "seed": 0}


def random_source(architecture="gpt2", **changed):
    end_ids = changed.pop("end_ids", None)
    wanted = {"architecture": architecture, **TINY, **changed}
    return ModelSource.model_validate({"random": wanted, "licence": "none", "end_ids": end_ids})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    fetch_model("tiny", random_source(), folder)
    return folder


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_seed_determines_the_weights_bytes(architecture, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fetch_model("x", random_source(architecture, seed=seed), tmp_path / name)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (architecture == "gpt2")


def test_making_a_model_leaves_the_global_generator_alone(tmp_path):
    before = torch.random.get_rng_state()
    fetch_model("x", random_source(), tmp_path / "x")
    assert torch.equal(before, torch.random.get_rng_state())


def test_byte_tokenizer_gives_every_text_back(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = "Hello  world ,\n\tna\u00efve \u6771\u4eac \U0001f642 don 't"
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text.encode())
    assert max(ids) < 256
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 256


def test_manifest_describes_the_directory(tiny):
    manifest = json.loads((tiny / "manifest.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert manifest["name"] == "tiny"
    assert manifest["source"]["random"]["architecture"] == "gpt2"
    assert manifest["licence"] == "none"
    assert manifest["sha256"] == sha256(tiny / "model.safetensors")
    assert manifest["end_ids"] == [256] == model.generation_config.eos_token_id
    assert manifest["parameters"] == sum(p.numel() for p in model.parameters())
    assert manifest["vocabulary"] == 257
    assert set(manifest["made_with"]) == {"torch", "transformers"}


def test_local_model_keeps_weights_and_drops_its_sampling_settings(tiny, tmp_path):
    theirs = tmp_path / "theirs"
    shutil.copytree(tiny, theirs)
    settings = {"do_sample": True, "top_k": 7, "eos_token_id": 256}
    (theirs / "generation_config.json").write_text(json.dumps(settings))
    source = ModelSource(local=str(theirs), licence="none", end_ids=(256, 10))
    fetch_model("x", source, tmp_path / "ours")
    ours, before = (AutoModelForCausalLM.from_pretrained(d) for d in (tmp_path / "ours", tiny))
    assert ours.generation_config.eos_token_id == [256, 10]
    assert "top_k" not in json.loads((tmp_path / "ours" / "generation_config.json").read_text())
    ids = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, before(ids).logits)


def test_model_without_safetensors_is_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").rename(tmp_path / "bin" / "pytorch_model.bin")
    source = ModelSource(local=str(tmp_path / "bin"), licence="none")
    with pytest.raises(ResourceError, match=r"models\.x: bin holds no safetensors"):
        fetch_model("x", source, tmp_path / "out")


def test_model_with_missing_weights_is_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "part")
    config = json.loads((tmp_path / "part" / "config.json").read_text())
    (tmp_path / "part" / "config.json").write_text(json.dumps({**config, "n_layer": 2}))
    source = ModelSource(local=str(tmp_path / "part"), licence="none")
    with pytest.raises(ResourceError, match=r"part lacks \d+ weights, e\.g\. transformer\.h\.1"):
        fetch_model("x", source, tmp_path / "out")


def test_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.bin").write_text("")
    source = ModelSource(local=str(tmp_path / "model.bin"), licence="none")
    with pytest.raises(ResourceError, match=r"model\.bin is neither a directory nor a \.gguf file"):
        fetch_model("x", source, tmp_path / "out")


def test_broken_gguf_is_a_resource_error(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF is not what this is" * 10)
    source = ModelSource(local=str(tmp_path / "model.gguf"), licence="none")
    with pytest.raises(ResourceError, match=r"models\.x: model\.gguf cannot be loaded"):
        fetch_model("x", source, tmp_path / "out")


def test_failure_keeps_the_older_model_and_leaves_no_scraps(tmp_path):
    out = tmp_path / "x"
    fetch_model("x", random_source(), out)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(ResourceError, match=r"models\.x\.end_ids: \[999\] outside the 257"):
        fetch_model("x", random_source(seed=1, end_ids=[999]), out)
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "model.safetensors").read_bytes() == before


def test_width_must_fit_the_heads(tmp_path):
    with pytest.raises(ResourceError, match=r"models\.x\.random\.width: must be a multiple"):
        fetch_model("x", random_source("llama", width=6), tmp_path / "x")
