"""What a method is: a `MethodSpec` says what it learns from, how it decodes and what it costs.

All code that lists or distinguishes methods reads the specs (see `quark.config.registry`). This
module imports no torch; functions are named as `module:function` and loaded when they run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import Field, model_validator

from quark.config.quark import Optimisation, Place
from quark.config.types import Count, Positive, Section

if TYPE_CHECKING:
    from quark.config.whole import WrittenConfig


@dataclass(frozen=True)
class Rounds:
    """The rounds of a method that samples, scores and trains in rounds.

    Attributes:
        section: the configuration's section of the method, such as `baselines.ppo`.
        version: the version in the configuration that forces a rerun.
        iterations: how many rounds.
        samples: samples of each prompt in a round.
        summary: keys of a round's JSON files, compared across rounds.
        place: where a round samples on the axis of linear reward tokens; 1: under the best.
        begins_with: the method whose first samples it also uses; None: it draws its own.
        learner: `module:function` that trains on the scored samples of a round (see
            `quark.training.rounds`); None: the round quantizes and trains as Quark does.
        settings: the type of the learner's settings.
        training: these settings.
        trains_on: the share of a round's samples that its learner trains on, for the plan.
        whole_distribution: the samples must be of the whole distribution, without truncation.
    """

    section: str
    version: "Callable[[WrittenConfig], int]"
    iterations: "Callable[[WrittenConfig], int]"
    samples: "Callable[[WrittenConfig, int], int]"
    summary: Mapping[str, tuple[str, ...]]
    place: "Callable[[WrittenConfig, int], float]" = lambda config, iteration: 1.0
    begins_with: str | None = None
    learner: str | None = None
    settings: type[Optimisation] | None = None
    training: "Callable[[WrittenConfig], Optimisation] | None" = None
    trains_on: "Callable[[WrittenConfig], float]" = lambda config: 1.0
    whole_distribution: bool = True

    @property
    def stages(self) -> tuple[str, ...]:
        """The JSON files that a round leaves."""
        pool = () if self.learner else ("pool",)
        return ("samples", "scores", *pool, "training")


@dataclass(frozen=True)
class Part:
    """A part that a method learns from the corpus, once.

    Attributes:
        fit: `module:function` that trains it (see `quark.training.fitting`).
        settings: the type of the fit's settings; None: it has none.
        training: these settings.
        label: the class of the texts that it learns from: 0 wanted, 1 unwanted; None: both.
        has_tokens: it has reward tokens, of the form `quark.reward_tokens`.
        readings: under how many reward tokens it reads each text.
        version: the version in the configuration that forces a rerun.
    """

    fit: str
    settings: type[Section] | None = None
    training: "Callable[[WrittenConfig], Any]" = lambda config: None
    label: int | None = None
    has_tokens: bool = False
    readings: int = 1
    version: "Callable[[WrittenConfig], int]" = lambda config: config.baselines.version


@dataclass(frozen=True)
class MethodSpec:
    """What a method is.

    Attributes:
        label: its name in papers.
        rounds: its rounds; None: it does not sample and train in rounds.
        parts: the parts that it learns from the corpus, in the order of its decoder's argument.
        trained_as: the method whose policy it decodes with; None: its own.
        has_own_model: it is, or starts from, the model that `tasks.TASK.models` names.
        is_plain: it is a plain model, without reward token or guide; contrastive search can decode
            it.
        decoder: `module:function` that makes its decoder from the model's directory, the
            checkpoints of its parts, its settings and the precision; None: a plain policy.
        settings: the type of that decoder's settings.
        steering: these settings; None: it decodes as a policy.
        section: the type of `plugins.NAME`, which `config.plugin(NAME)` gives; None: `settings`,
            if the method is another package's.
        form: the form of its reward tokens; None: it has none.
        needs_tokens: it cannot run without reward tokens.
        place: where it decodes on the axis of linear reward tokens.
        within_base: its decoder draws within the base model's nucleus.
        reads_as_base: whether its decoder computes the base model's hidden states: always, or with
            linear reward tokens.
        passes: how many model passes each token takes, its own model's included.
        draws: how many continuations it draws for each one that is kept: the one with the highest
            reward.
        share: the share of a split's prompts that it is evaluated on.
        also_reads: keys of other sections that its results depend on.
        look: colour and marker in figures; None: a hollow marker.
    """

    label: str
    rounds: Rounds | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    trained_as: str | None = None
    has_own_model: bool = False
    is_plain: bool = False
    decoder: str | None = None
    settings: type[Section] | None = None
    steering: "Callable[[WrittenConfig], Section | None]" = lambda config: None
    section: type[Section] | None = None
    form: "Callable[[WrittenConfig], str | None]" = lambda config: None
    needs_tokens: bool = False
    place: "Callable[[WrittenConfig], float] | None" = None
    within_base: bool = False
    reads_as_base: Literal["always", "linear"] | None = None
    passes: "Callable[[WrittenConfig], int]" = lambda config: 1
    draws: "Callable[[WrittenConfig], int]" = lambda config: 1
    share: "Callable[[WrittenConfig], float | None]" = lambda config: None
    also_reads: tuple[str, ...] = ()
    look: tuple[str, str] | None = None


def is_linear(config: "WrittenConfig") -> bool:
    """Whether reward tokens are places of a linear map of the frozen base model's states."""
    return config.quark.reward_tokens.form == "linear"


# --------------------------------------------------------------------- methods that learn in rounds
class RoundTraining(Optimisation):
    """The keys of every method that `learns_in_rounds`."""

    iterations: Count = Field(
        description="rounds of sampling and training; the rate decays over all"
    )
    samples: Count = Field(
        description="of each prompt in later iterations; the first takes Quark's `first_samples`"
    )
    epochs: Count = Field(description="passes over an iteration's samples")
    token_learning_rate: Positive = Field(
        description="rate of its only reward token, if its form is linear or sink"
    )


class GroupedTraining(RoundTraining):
    """The same, of a method that compares a prompt's samples with each other."""

    @model_validator(mode="after")
    def _a_prompt_has_two_samples(self) -> Self:
        if self.iterations > 1 and self.samples < 2:
            raise ValueError("samples must be at least 2: a prompt's samples are compared")
        return self


class RoundSettings(Section):
    """The settings of such a method under `plugins.NAME`; each method narrows `training`."""

    training: RoundTraining
    place: float


def learns_in_rounds(
    name: str,
    label: str,
    section: type[RoundSettings] | None = None,
    *,
    learner: str | None = None,
    training: type[RoundTraining] | None = None,
    own: "Callable[[WrittenConfig], Any] | None" = None,
    where: str | None = None,
    look: tuple[str, str] | None = None,
    summary: tuple[str, ...] = ("mean_reward", "kl"),
    trains_on: "Callable[[WrittenConfig], float]" = lambda config: 1.0,
    whole_distribution: bool = True,
) -> MethodSpec:
    """The spec of a method that learns from scored samples in rounds, as PPO does.

    Its first round learns from Quark's samples of the base model, later ones from its own. It
    trains what Quark trains: with linear reward tokens one map, which decodes at its own place.

    Args:
        name: in `tasks.TASK.methods`.
        label: its name in papers.
        section: the type of its settings under `plugins.NAME`.
        learner: as in `Rounds`; None: `quark.methods.NAME:learner`.
        training: the type of the learner's settings; None: that of `section.training`.
        own: gives its settings, with `training` and `place`; None: `config.plugin(NAME)`.
        where: their place in the configuration; None: `plugins.NAME`.
        look: colour and marker in figures.
        summary: numbers of a round that are compared across rounds.
        trains_on: the share of a round's samples that it trains on, for the plan.
        whole_distribution: the samples must be of the whole distribution, without truncation.
    """
    found: Callable[[WrittenConfig], Any] = own or (lambda config: config.plugin(name))
    if training is None and section is not None:
        training = cast(type[RoundTraining], section.model_fields["training"].annotation)

    def samples(config: "WrittenConfig", iteration: int) -> int:
        count = found(config).training.samples if iteration else config.quark.first_samples
        return int(count)

    def steering(config: "WrittenConfig") -> Place | None:
        place = found(config).place if is_linear(config) else 1
        return None if place == 1 else Place(place=place)

    def form(config: "WrittenConfig") -> str | None:
        found = config.quark.reward_tokens.form
        return None if found in ("none", "embedding") else found

    return MethodSpec(
        label,
        rounds=Rounds(
            section=where or f"plugins.{name}",
            version=lambda config: config.baselines.version,
            iterations=lambda config: found(config).training.iterations,
            samples=samples,
            summary={"training": summary},
            begins_with="quark",
            learner=learner or f"quark.methods.{name}:learner",
            settings=training,
            training=lambda config: found(config).training,
            trains_on=trains_on,
            whole_distribution=whole_distribution,
        ),
        decoder="quark.methods.guided:decoder",
        settings=Place,
        steering=steering,
        section=section,
        form=form,
        place=lambda config: found(config).place,
        within_base=True,
        reads_as_base="linear",
        also_reads=tuple(
            f"quark.{key}" for key in ("prompts", "first_samples", "sampling", "reward_tokens")
        ),
        look=look,
    )
