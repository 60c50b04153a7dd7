"""Language models, converted once to a safetensors directory that loads fast.

torch and transformers are imported inside the functions, so that prompts need neither.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quark.config import ModelSource, RandomModel
from quark.core.files import sha256, whole, write_json
from quark.data.fetch import ResourceError, fetch
from quark.models.weights import check_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"


def fetch_model(name: str, source: ModelSource, out: Path) -> None:
    """Make the directory `out`: model.safetensors, its configuration, tokenizer, manifest.json.

    Weights keep their type; those of a GGUF file are unpacked to float32, which holds every one of
    them exactly (bfloat16 would round them). The generation configuration keeps only the end ids
    and the padding id: sampling settings never come from a model's author (protocol 9.1).

    Raises:
        ResourceError: the source cannot be fetched, is no complete model, or `end_ids` do not fit.
    """
    resource = f"models.{name}"
    with tempfile.TemporaryDirectory() as scratch:
        if source.random:
            model, tokenizer = _random(resource, source.random)
        else:
            model, tokenizer = _pretrained(resource, _path(resource, source, Path(scratch)))
        end_ids = _end_ids(resource, source, model, tokenizer)
        save_model(name, source, model, tokenizer, end_ids, out)


def _path(resource: str, source: ModelSource, scratch: Path) -> Path:
    """Return the GGUF file or the model directory that the source gives."""
    if source.hub and source.hub.file:
        raise ResourceError(f"{resource}.hub.file: a model takes the whole repository; remove it")
    found = fetch(resource, source, scratch)
    path = found[0] if len(found) == 1 else found[0].parent
    if any(file.parent != path for file in found if file != path):
        raise ResourceError(f"{resource}: its files lie in several directories; narrow `member`")
    if path.is_file() and path.suffix != ".gguf":
        raise ResourceError(f"{resource}: {path.name} is neither a directory nor a .gguf file")
    if path.is_dir() and not list(path.glob("*.safetensors")):
        raise ResourceError(
            f"{resource}: {path.name} holds no safetensors; convert the model, pickles are not read"
        )
    return path


def _pretrained(resource: str, path: Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a model directory, or unpack a GGUF file (half a minute for 135 M parameters)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    packed = path.is_file()
    folder = path.parent if packed else path
    where: dict[str, Any] = {"local_files_only": True}
    weights: dict[str, Any] = {"dtype": "auto", "use_safetensors": True}
    if packed:
        where["gguf_file"] = path.name
        weights = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    try:
        if not packed:
            check_model(folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, **weights, **where
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **where)
    except (OSError, ValueError, KeyError) as error:
        raise ResourceError(f"{resource}: {path.name} cannot be loaded: {error}") from error
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ResourceError(
            f"{resource}: {path.name} lacks {len(missing)} weights, e.g. {missing[0]}; "
            "is it a causal language model, and whole?"
        )
    return (_plain(model) if packed else model), tokenizer


def _plain(model: "PreTrainedModel") -> "PreTrainedModel":
    """Copy an unpacked GGUF model to a model without GGUF settings, so that it can be saved."""
    config = type(model.config).from_dict(
        {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    )
    plain: PreTrainedModel = type(model)(config)
    plain.load_state_dict(model.state_dict())
    return plain


def _random(
    resource: str, wanted: RandomModel
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Make a tiny GPT-2 (tied embeddings) or Llama (untied) whose weights `seed` determines."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if wanted.width % (2 * wanted.heads):  # a rotary embedding turns pairs of a head's dimensions
        raise ResourceError(f"{resource}.random.width: must be a multiple of twice the heads")
    tokenizer = _byte_tokenizer(wanted.context)
    end = tokenizer.eos_token_id
    ids = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        if wanted.architecture == "gpt2":
            gpt2 = GPT2Config(
                n_layer=wanted.layers,
                n_embd=wanted.width,
                n_head=wanted.heads,
                n_positions=wanted.context,
                **ids,
            )
            return GPT2LMHeadModel(gpt2), tokenizer
        llama = LlamaConfig(
            num_hidden_layers=wanted.layers,
            hidden_size=wanted.width,
            intermediate_size=4 * wanted.width,
            num_attention_heads=wanted.heads,
            max_position_embeddings=wanted.context,
            tie_word_embeddings=False,
            **ids,
        )
        return LlamaForCausalLM(llama), tokenizer


def _byte_tokenizer(context: int) -> "PreTrainedTokenizerBase":
    """Make a tokenizer with one token for each byte and one for the end of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=context,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )


def _end_ids(
    resource: str,
    source: ModelSource,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
) -> list[int]:
    """Return the configured end ids, else the model's own, else the tokenizer's."""
    stated = (model.generation_config, model.config, tokenizer)
    ids = (getattr(each, "eos_token_id", None) for each in stated)
    own: int | list[int] = next((found for found in ids if found is not None), [])
    end_ids = list(source.end_ids or ([own] if isinstance(own, int) else own))
    if not end_ids:
        raise ResourceError(f"{resource}: the model states no end of text; set `end_ids`")
    vocabulary: int = model.config.vocab_size
    if wrong := [token for token in end_ids if not 0 <= token < vocabulary]:
        raise ResourceError(f"{resource}.end_ids: {wrong} outside the {vocabulary} token ids")
    return end_ids


def save_model(
    name: str,
    source: ModelSource,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    end_ids: Sequence[int],
    out: Path,
) -> None:
    """Write the directory `out`: model.safetensors, configuration, tokenizer, manifest.json."""
    with whole(out) as made:
        _save(model, tokenizer, end_ids, made)
        write_json(made / "manifest.json", _manifest(name, source, model, list(end_ids), made))


def _save(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    end_ids: Sequence[int],
    folder: Path,
) -> None:
    from transformers import GenerationConfig

    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end_ids[0])
    model.generation_config = GenerationConfig(
        eos_token_id=list(end_ids), pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder, max_shard_size="1000GB")  # one file, whatever its size
    tokenizer.save_pretrained(folder)


def _manifest(
    name: str, source: ModelSource, model: "PreTrainedModel", end_ids: list[int], folder: Path
) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "name": name,
        "source": source.model_dump(mode="json", exclude_none=True),
        "licence": source.licence,
        "sha256": sha256(folder / "model.safetensors"),
        "end_ids": end_ids,
        "parameters": model.num_parameters(),
        "vocabulary": model.config.vocab_size,
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
