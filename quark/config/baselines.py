"""The methods that the table compares Quark with."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from quark.config.quark import Contrast, Optimisation
from quark.config.spec import RoundTraining
from quark.config.types import Count, Name, NonNegative, Positive, Probability, Section


class CorpusRows(Section):
    """The largest number of rows of each class from each source; null: all."""

    prompts: Annotated[int, Field(ge=0)] | None = Field(
        description="unwanted training prompts, at most; null: all"
    )
    samples: Annotated[int, Field(ge=0)] | None = Field(
        description="samples of each class, at most"
    )
    texts: Annotated[int, Field(ge=0)] | None = Field(description="the first n plain texts")


class Corpus(Section):
    """Wanted and unwanted text, from which DAPT, DExperts, GeDi, PPLM and LM-Steer learn."""

    texts: Name | None = Field(description="plain texts; their split `train` is used")
    wanted_from: Probability = Field(description="a text with at least this reward is wanted")
    unwanted_to: Probability = Field(description="one with at most this reward is unwanted")
    rows: CorpusRows
    tokens: Count = Field(description="longer prompts and texts are cut")

    @model_validator(mode="after")
    def _classes_are_apart(self) -> Self:
        if self.unwanted_to >= self.wanted_from:
            raise ValueError("unwanted_to must be below wanted_from")
        return self


class Finetuning(Optimisation):
    """Training a language model on the corpus."""

    epochs: Count = Field(description="passes over the rows")
    trained_layers: Count | None = Field(
        description="how many top layers learn; null: all parameters"
    )


class DExperts(Contrast):
    """DExperts (Liu et al. 2021)."""

    training: Finetuning = Field(description="of both experts")

    @property
    def contrast(self) -> Contrast:
        """How it decodes."""
        return Contrast(alpha=self.alpha)


class GeDiTraining(Finetuning):
    """The class-conditional language model of GeDi."""

    trained_layers: Annotated[int, Field(ge=0)] | None = Field(
        description="how many top layers learn beside the classes' tokens; null: all "
        "parameters; 0: none, required for linear reward tokens"
    )
    token_learning_rate: Positive = Field(
        description="of the tokens that name the classes; their form is `quark.reward_tokens`"
    )
    scale_learning_rate: Positive = Field(description="of the logarithm of the evidence's scale")
    codes: tuple[str, str] = Field(
        strict=False,
        description="with form embedding: words whose embeddings the tokens of the wanted and of "
        "the other class start as",
    )
    generative: Probability = Field(description="lambda, the language-modelling part of the loss")


class GeDi(Section):
    """GeDi (Krause et al. 2021)."""

    training: GeDiTraining
    weight: NonNegative = Field(description="omega, of log P(wanted) in the logits")
    filter_p: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the least wanted tokens up to this probability are never drawn"
    )
    target_p: Annotated[float, Field(gt=0, le=1)] = Field(
        description="but a token stays if P(wanted) is at least this"
    )
    class_bias: float = Field(description="added to the wanted class's exponent")


class CTRL(Section):
    """CTRL (Keskar et al. 2019): a model with control codes."""

    control: str = Field(
        description="text before every prompt of CTRL, a separate pretrained model "
        "(`tasks.TASK.models.ctrl`); its weights are not part of the default"
    )
    penalty: Annotated[float, Field(ge=1)] = Field(
        description="theta, lowers the logits of tokens that were read; 1: none"
    )


class PPLM(Section):
    """PPLM (Dathathri et al. 2020) with a classifier."""

    step_size: NonNegative = Field(description="length of a step; 0: the base model")
    iterations: Count = Field(description="steps before each token")
    gamma: NonNegative = Field(description="power of the gradient's norm that a step divides by")
    fusion: Probability = Field(description="share of the moved distribution in the geometric mean")
    kl_scale: NonNegative = Field(description="weight of the KL to the unmoved distribution")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="of each split's prompts; PPLM is slow, and the published runs had 10 %"
    )


class PPOTraining(RoundTraining):
    """Proximal policy optimisation of the reward."""

    value_learning_rate: Positive = Field(description="of the value head")
    gamma: Probability = Field(description="discount of a token")
    lam: Probability = Field(description="lambda of the generalised advantages")
    clip: Positive = Field(description="largest change of a token's probability ratio")
    value_clip: Positive | None = Field(description="largest change of a value; null: any")
    value_coef: NonNegative = Field(description="weight of the value loss")
    kl_coef: NonNegative = Field(description="beta, of the KL in each token's reward")
    kl_target: Positive | None = Field(
        description="nats per response that beta aims at; null: it is fixed"
    )
    kl_adaptation: NonNegative = Field(description="how fast beta follows")


class PPO(PPOTraining):
    """PPO (Schulman et al. 2017), and where its policy decodes."""

    place: float = Field(
        default=1.0,
        description="c, where a policy with linear tokens decodes; it learns at 1, other places "
        "are extrapolated, within the base model's nucleus",
    )

    @property
    def training(self) -> PPOTraining:
        """How it learns."""
        return PPOTraining.model_validate(self.model_dump(exclude={"place"}))


class Baselines(Section):
    """The methods that the table compares Quark with."""

    version: int = Field(description="raise it when the code of a baseline changes meaning")
    corpus: Corpus
    dapt: Finetuning = Field(description="on wanted text")
    dexperts: DExperts
    gedi: GeDi
    pplm: PPLM
    ctrl: CTRL
    ppo: PPO
