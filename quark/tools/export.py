"""Export the unlearned model as a Hugging Face directory that transformers loads.

    reward tokens   exported model
    linear          the model at a place of the map: output embeddings E (I + c W)', not tied
    embedding       one more token; the tokenizer adds it before a prompt
    none            the trained model without changes
    sink            `modeling_quark.py` beside the weights

All forms except `sink` load without `trust_remote_code`. No standard architecture shifts the first
position's keys and values, so `sink` includes its own code and does not load without that flag.
Low-rank adapters are merged into the weights. The generation configuration samples as the
evaluation did.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quark.config import Config, ConfigError, Sampling, TaskName, for_task
from quark.core.files import read_json, whole
from quark.models.checkpoint import load_policy
from quark.models.lm import BEST_PLACE, DTYPES, Policy, encode, load_tokenizer
from quark.models.lora import merge_adapters
from quark.models.reward_tokens import EmbeddingTokens, LinearTokens, SinkTokens
from quark.reporting.model_card import card
from quark.stages import derive
from quark.tools.status import last_checkpoint

BEST = "<|quark|>"
"""The token of the best quantile."""


class ExportError(RuntimeError):
    """The model cannot be exported: others would load it differently."""


def export(
    config: Config,
    task: TaskName,
    method: str,
    seed: int,
    results: Path,
    resources: Path,
    out: Path,
    place: float | None = None,
) -> None:
    """Write the policy under its best reward token as a directory that transformers loads.

    Args:
        config: the run's configuration.
        task, method, seed: the run; its last iteration is exported.
        results, resources: the directories of results and resources.
        out: the new directory: model.safetensors, config.json, generation_config.json, tokenizer,
            README.md.
        place: c of linear reward tokens; None: 1, the best one.

    Raises:
        ConfigError: a place is given, but the reward tokens are not linear; or the run does not
            exist, or was trained with other settings.
        DamagedError: its checkpoint differs from what training wrote.
        ExportError: its tokenizer, when loaded again, reads a text differently from this package.
    """
    checkpoint = last_checkpoint(config, task, method, seed, results)
    chosen = for_task(config, task)
    model = resources / "models" / derive.model(config, task, method)
    policy = load_policy(model, checkpoint, "fp32")
    if place is not None and not isinstance(policy.reward_tokens, LinearTokens):
        raise ConfigError("--place is for reward tokens of the form linear")
    policy.steer(BEST_PLACE if place is None else place)
    lm: Any = policy.lm
    merge_adapters(lm)
    lm.to(DTYPES[config.precision])
    tokenizer = load_tokenizer(model)
    decoding, sampling = next(iter(chosen.evaluation.decoding.items()))
    with whole(out) as made:
        _generate_as(lm, sampling)
        told = isinstance(policy.reward_tokens, EmbeddingTokens)
        if told:
            _add_token(policy, tokenizer)
        lm.save_pretrained(made, max_shard_size="1000GB")
        remote = isinstance(policy.reward_tokens, SinkTokens)
        if remote:
            _add_sink(policy, made)
        _save_tokenizer(tokenizer, made, [BEST] if told else [])
        about = read_json(model / "manifest.json")
        table = results / "tables" / f"{task}.csv"
        text = card(chosen, task, method, seed, about, table, decoding, place, remote)
        (made / "README.md").write_text(text)


def _generate_as(lm: Any, sampling: Sampling) -> None:
    """Set the defaults of `generate` to the evaluation's sampling settings."""
    lm.generation_config.update(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_new_tokens=sampling.min_new_tokens,
        max_new_tokens=sampling.max_new_tokens,
    )


@torch.no_grad()
def _add_token(policy: Policy, tokenizer: Any) -> None:
    """Add one more token; the model reads it before every prompt and never generates it."""
    tokenizer.add_special_tokens({"additional_special_tokens": [BEST]})
    token = tokenizer.convert_tokens_to_ids(BEST)
    lm: Any = policy.lm
    rows = max(policy.vocabulary, token + 1)
    lm.resize_token_embeddings(rows, mean_resizing=False)
    tokens = policy.reward_tokens
    assert isinstance(tokens, EmbeddingTokens)
    lm.get_input_embeddings().weight[token] = tokens.rows[0]
    lm.generation_config.suppress_tokens = list(range(min(policy.vocabulary, token), rows))


def _save_tokenizer(tokenizer: Any, folder: Path, before: list[str]) -> None:
    """Write a tokenizer that adds these tokens before a text, and no other special tokens.

    Training and evaluation use no other special tokens (`lm.encode`), even if the model's own
    tokenizer adds some. The tokenizer is written with a plain class, because some classes add their
    own tokens again when they are loaded.

    Raises:
        ExportError: the tokenizer, when loaded again, adds other tokens.
    """
    from tokenizers import processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    texts = ["So I started asking them", " a\n"]
    wanted = [[*tokenizer.convert_tokens_to_ids(before), *ids] for ids in encode(tokenizer, texts)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A"],
        pair=[*before, "$A", "$B"],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in before],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        clean_up_tokenization_spaces=False,
        model_max_length=tokenizer.model_max_length,
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    ).save_pretrained(folder)
    found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(texts)["input_ids"]
    if found != wanted:
        raise ExportError(
            f"its {type(tokenizer).__name__} reads {texts[0]!r} as {found[0]} once it is loaded "
            f"again, not as {wanted[0]}: a model with this tokenizer cannot be exported"
        )


@torch.no_grad()
def _add_sink(policy: Policy, folder: Path) -> None:
    """Store the best token's shift with the weights, and write the code that adds it."""
    import json

    from safetensors.torch import load_file, save_file

    tokens = policy.reward_tokens
    assert isinstance(tokens, SinkTokens)
    shift = tokens.place[0] * tokens.axis * tokens.deviation[:, :, None, None]
    weights = folder / "model.safetensors"
    stored = load_file(weights) | {"quark_shift": shift.contiguous()}
    save_file(stored, weights, metadata={"format": "pt"})
    lm: nn.Module = policy.lm
    source = _source()
    for of, name in (("Config", type(policy.lm.config)), ("ForCausalLM", type(lm))):
        source = source.replace(f"import Llama{of} as", f"import {name.__name__} as")
    (folder / "modeling_quark.py").write_text(source)
    about = json.loads((folder / "config.json").read_text())
    about |= {
        "model_type": "quark",
        "architectures": ["QuarkForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_quark.QuarkConfig",
            "AutoModelForCausalLM": "modeling_quark.QuarkForCausalLM",
        },
        "quark_first_layer": tokens.first_layer,
        "quark_shape": list(shift.shape),
    }
    (folder / "config.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")


def _source() -> str:
    """Return the code that is part of an exported model."""
    found = importlib.util.find_spec("quark.tools.exported.modeling_quark")
    assert found is not None and found.origin is not None
    return Path(found.origin).read_text()
