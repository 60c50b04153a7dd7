"""A causal language model, and the policy: the same model with reward tokens.

Any Hugging Face causal LM can be used, with tied embeddings or without. `quark.reward_tokens` has
the forms of reward tokens. Token k, embedded or a sink, is the id V + k before the prompt, where V
is the size of the model's vocabulary. A linear token adds no id: `Policy.steer` changes the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from quark.config import Precision
from quark.models.attention import GROUPED
from quark.models.reward_tokens import EmbeddingTokens, LinearTokens, SinkTokens
from quark.models.weights import check_model, refuse_code

BEST_PLACE = 1.0
"""The place of the best linear reward token."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class ModelError(ValueError):
    """A model that cannot be used here; the text names it and says why."""


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Policy(nn.Module):
    """A causal LM with reward tokens, which condition it on a quantile.

    Args:
        lm: the language model; its parameters are the policy's.
        reward_tokens: None for a plain model.

    `base_head`: output embeddings (V, d) of the base model, if `steer` replaced them; else None.
    """

    base_head: Tensor | None = None

    def __init__(
        self,
        lm: PreTrainedModel,
        reward_tokens: EmbeddingTokens | LinearTokens | SinkTokens | None = None,
    ) -> None:
        super().__init__()
        self.lm = lm
        self.reward_tokens = reward_tokens

    @property
    def embeddings(self) -> nn.Embedding:
        """The input embeddings, V rows of width d."""
        return cast(nn.Embedding, self.lm.get_input_embeddings())

    @property
    def vocabulary(self) -> int:
        """V: the number of tokens the model can write."""
        return self.embeddings.num_embeddings

    @property
    def context(self) -> int:
        """The most positions the model can read."""
        return int(getattr(self.lm.config, "max_position_embeddings", 1 << 30))

    @property
    def head(self) -> Tensor:
        """The output embeddings, (V, d)."""
        return cast(nn.Linear, self.lm.get_output_embeddings()).weight

    @property
    def end_ids(self) -> list[int]:
        """The ids that end a text."""
        ids = self.lm.generation_config.eos_token_id
        return [] if ids is None else ids if isinstance(ids, list) else [ids]

    def condition(self, prompt_ids: Sequence[int], quantile: int | None) -> list[int]:
        """The prompt with the reward token of `quantile` before it.

        Linear reward tokens and quantile None add nothing there.
        """
        tokens = self.reward_tokens
        if quantile is None or tokens is None or isinstance(tokens, LinearTokens):
            return list(prompt_ids)
        return [self.vocabulary + quantile, *prompt_ids]

    @torch.no_grad()
    def steer(self, place: float = BEST_PLACE) -> None:
        """Fix linear reward tokens at a place; the result is a plain model.

        Its output embeddings are E (I + c W)'. Its hidden states are those of the base model.
        Without linear reward tokens nothing changes.

        Args:
            place: c; 1 is the best reward token, -1 the worst, 0 the base model.
        """
        tokens = self.reward_tokens
        if not isinstance(tokens, LinearTokens):
            return
        self.base_head = self.head.detach()
        steered = nn.Linear(self.head.shape[1], self.vocabulary, bias=False, device="meta")
        steered.weight = nn.Parameter(tokens.merged_head(self.head, place), requires_grad=False)
        self.lm.set_output_embeddings(steered)
        self.lm.config.tie_word_embeddings = False
        self.reward_tokens = None

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (..., d) of token ids, including embedded reward tokens."""
        if not isinstance(self.reward_tokens, EmbeddingTokens):
            return cast(Tensor, self.embeddings(ids))
        reward = ids >= self.vocabulary
        embedded: Tensor = self.embeddings(ids.masked_fill(reward, 0))
        places = (ids - self.vocabulary).clamp(min=0)
        tokens = nn.functional.embedding(places, self.reward_tokens.rows)
        return torch.where(reward[..., None], tokens.to(embedded.dtype), embedded)

    def hidden(self, ids: Tensor, **arguments: Any) -> Any:
        """The trunk's output for token ids (rows, time); keyword arguments go to the model."""
        return self.lm.base_model(inputs_embeds=self.embed(ids), **arguments)

    @torch.no_grad()
    def check_head(self, name: str, biased: bool = False) -> None:
        """Check that the logits are exactly the last hidden states times the head.

        Args:
            name: of the model, for errors.
            biased: a bias is allowed; the caller adds it.

        Raises:
            ModelError: the model scales, caps or shifts its logits: the fused loss would be wrong.
        """
        ids = torch.arange(4, device=self.head.device)[None]
        expected = self.lm(inputs_embeds=self.embed(ids)).logits.float()
        logits = (self.hidden(ids, use_cache=False).last_hidden_state @ self.head.T).float()
        bias = getattr(self.lm.get_output_embeddings(), "bias", None)
        if biased and bias is not None:
            logits = logits + bias.float()
        if not torch.allclose(logits, expected, atol=1e-2, rtol=1e-2):  # bf16 has 8 bits
            raise ModelError(
                f"{name}: its logits are not (last hidden state) x (output embeddings); "
                "architectures that scale, cap or shift logits are not supported"
            )


def layers_of(lm: nn.Module) -> nn.ModuleList:
    """The stack of a language model's layers, lowest first."""
    stacks = [module for module in lm.modules() if isinstance(module, nn.ModuleList)]
    return max(stacks, key=lambda stack: len(stack))


def load_model(
    directory: Path | str,
    precision: Precision,
    *,
    biased: bool = False,
    where: torch.device | None = None,
) -> Policy:
    """Load a safetensors directory as a plain policy without reward tokens, in evaluation mode.

    Args:
        directory: of the model.
        precision: of its weights.
        biased: its output layer may have a bias, which the caller adds.
        where: None: the GPU if there is one.

    Raises:
        ModelError: the directory is missing, or its architecture is not supported.
        CustomCodeError: it requires custom code.
        DamagedError: its weights are damaged.
    """
    if not (Path(directory) / "config.json").exists():
        raise ModelError(f"{directory}: no model here; `quark fetch-model` makes it")
    check_model(Path(directory))
    attention = "sdpa" if torch.cuda.is_available() else GROUPED
    try:
        lm = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=DTYPES[precision],
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{directory}: cannot be loaded: {error}") from error
    policy = Policy(lm).to(where or device()).eval()
    policy.check_head(str(directory), biased)
    return policy


def load_tokenizer(directory: Path | str) -> Any:
    """The tokenizer of a model directory.

    Raises:
        CustomCodeError: it requires custom code.
    """
    refuse_code(Path(directory))
    return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens around it."""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def decode(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token ids, without clean-up of spaces and without special tokens."""
    if not ids:
        return []  # the tokenizer would read it as one empty text
    texts: list[str] = tokenizer.batch_decode(
        [list(row) for row in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return texts


def decode_after(
    tokenizer: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> list[str]:
    """The texts of responses after their prompts, with the space between the two.

    Tokenizers of words or of SentencePiece drop a space at the beginning of a text.
    """
    before, alone = decode(tokenizer, prompts), decode(tokenizer, responses)
    both = decode(tokenizer, [[*p, *r] for p, r in zip(prompts, responses, strict=True)])
    return [
        whole.removeprefix(start) if whole.startswith(start) else text
        for start, whole, text in zip(before, both, alone, strict=True)
    ]


def pad(rows: Sequence[Sequence[int]], side: Literal["left", "right"]) -> tuple[Tensor, Tensor]:
    """Ids (rows, time) padded with 0, and a mask of the real ones, on the model's device.

    There is at least one column; if all rows are empty, it is padding.
    """
    longest = max(1, *map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    real = np.zeros((len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(len(row))
        ids[i, place], real[i, place] = row, True
    return torch.from_numpy(ids).to(device()), torch.from_numpy(real).to(device())
