"""CAA: a vector is added to the hidden states of one layer (Rimsky et al. 2024, ACL).

    h <- h + c v,    v = mean h of wanted text - mean h of unwanted text

h is the hidden state of a token that one layer reads. v, (d,), is computed once from the corpus;
nothing is trained. It is added to the last token of the prompt and to each new token: these predict
the response. The strength c is in multiples of v; 0 is the base model.

Departures from the paper, whose details are recalled (from memory, not read): there v comes from
pairs of answers to one question and from the token of the answer. Here texts are not in pairs, and
the mean is over the tokens of a response, then over the responses of a class. The paper adds v to
all tokens after the question.

This module imports torch only inside functions, so that Snakemake reads its spec quickly.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from quark.config import Precision
from quark.config.spec import MethodSpec, Part
from quark.config.types import Section

if TYPE_CHECKING:
    from torch import Tensor

    from quark.generation.decoding import Decoder
    from quark.models.lm import Policy
    from quark.training.fitting import Fitted, Texts
    from quark.training.trainer import Rows

BATCH = 64
"""Number of texts that are read together."""


class Settings(Section):
    """Where the vector is added, and how much of it."""

    depth: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the share of layers below the one whose input is moved"
    )
    strength: float = Field(description="c, in multiples of the vector; 0: the base model")


SPEC = MethodSpec(
    "CAA",
    parts={"vectors": Part("quark.methods.caa:fit")},
    decoder="quark.methods.caa:decoder",
    settings=Settings,
    steering=lambda config: cast(Settings, config.plugin("caa")),
    section=Settings,
    look=("#AEC7E8", "H"),
)


def class_means(policy: "Policy", rows: "Rows") -> "Tensor":
    """Mean hidden states that each layer reads, (2, layers, d) float64: of wanted, unwanted texts.

    The mean is over the tokens of a response, then over the responses of a class.
    """
    import torch

    from quark.core.shards import batched
    from quark.models.lm import layers_of, pad

    layers = len(layers_of(policy.lm))
    sums = torch.zeros(2, layers, policy.head.shape[1], dtype=torch.float64)
    order = sorted(range(len(rows.ids)), key=rows.whole_lengths.__getitem__)
    for places in batched(order, BATCH):
        part = rows.take(places)
        texts = [[*p, *r] for p, r in zip(part.prompts, part.responses, strict=True)]
        ids, real = pad(texts, "right")
        at = torch.arange(ids.shape[1])
        starts = torch.tensor(list(map(len, part.prompts)))[:, None]
        ends = torch.tensor(part.whole_lengths)[:, None]
        share = ((at >= starts) & (at < ends)).double() / part.lengths[:, None]
        with torch.no_grad():
            read = policy.hidden(
                ids, attention_mask=real, use_cache=False, output_hidden_states=True
            )
        for layer, states in enumerate(read.hidden_states[:layers]):
            means = torch.einsum("rt,rtd->rd", share, states.double().cpu())
            sums[:, layer].index_add_(0, torch.from_numpy(part.label).long(), means)
    count = torch.from_numpy(rows.label).long().bincount(minlength=2).double()
    return sums / count[:, None, None]


def fit(texts: "Texts", settings: None, out: Path) -> "Fitted":
    """Compute each layer's vector; `out` holds them, (layers, d). The fit has no settings."""
    from safetensors.torch import save_file

    from quark.core import files
    from quark.models.lm import load_model
    from quark.training.fitting import Fitted

    wanted, unwanted = class_means(load_model(texts.model, texts.precision), texts.rows)
    vectors = (wanted - unwanted).float().contiguous()
    with files.whole(out) as made:
        made.mkdir()
        save_file({"vectors": vectors}, made / "vectors.safetensors")
    return Fitted(1, {"norms": vectors.norm(dim=1).tolist()})


def steer(policy: "Policy", vector: "Tensor", layer: int) -> None:
    """Add a vector (d,) to the input of a layer, at the last token of what is read."""
    from quark.models.lm import layers_of

    def add(module: Any, arguments: "tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
        states = arguments[0].clone()
        states[:, -1] += vector.to(states)
        return (states, *arguments[1:])

    layers_of(policy.lm)[layer].register_forward_pre_hook(add)


def decoder(
    model: Path, parts: Sequence[Path], settings: Settings, precision: Precision
) -> "Decoder":
    """The base model with the vectors in `parts`, of which one layer's is added."""
    from safetensors.torch import load_file

    from quark.generation.decoding import Plain
    from quark.models.lm import load_model

    vectors = load_file(parts[0] / "vectors.safetensors")["vectors"]
    layer = int(settings.depth * len(vectors))
    policy = load_model(model, precision)
    steer(policy, settings.strength * vectors[layer], layer)
    return Plain(policy)
