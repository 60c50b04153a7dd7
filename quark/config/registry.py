"""The methods of the table, one `MethodSpec` each, and the tasks, by name.

A spec says what a method is: what it learns from, how it decodes, what it costs. All code that
lists or distinguishes methods reads the specs, so a new method is one entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from quark.config.baselines import CTRL, PPLM, Finetuning, GeDi, GeDiTraining, PPOTraining
from quark.config.parsing import ConfigError
from quark.config.plugins import Plugins
from quark.config.quark import Contrast, Optimisation, Place
from quark.config.types import Section

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
        has_tokens: whether it has reward tokens under a configuration.
        needs_tokens: it cannot run without reward tokens.
        place: where it decodes on the axis of linear reward tokens.
        within_base: its decoder draws within the base model's nucleus.
        reads_as_base: whether its decoder computes the base model's hidden states: always, or with
            linear reward tokens.
        passes: how many model passes each token takes, its own model's included.
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
    has_tokens: "Callable[[WrittenConfig], bool]" = lambda config: False
    needs_tokens: bool = False
    place: "Callable[[WrittenConfig], float] | None" = None
    within_base: bool = False
    reads_as_base: Literal["always", "linear"] | None = None
    passes: "Callable[[WrittenConfig], int]" = lambda config: 1
    share: "Callable[[WrittenConfig], float | None]" = lambda config: None
    also_reads: tuple[str, ...] = ()
    look: tuple[str, str] | None = None


def is_linear(config: "WrittenConfig") -> bool:
    """Whether reward tokens are places of a linear map of the frozen base model's states."""
    return config.quark.reward_tokens.form == "linear"


def _tokens(config: "WrittenConfig") -> bool:
    return config.quark.reward_tokens.form != "none"


TASKS: Plugins[Any] = Plugins(
    "quark.tasks",
    {
        "toxicity": "quark.tasks.toxicity:TASK",
        "sentiment_positive": "quark.tasks.sentiment:POSITIVE",
        "sentiment_negative": "quark.tasks.sentiment:NEGATIVE",
        "repetition": "quark.tasks.repetition:TASK",
    },
)
"""The tasks; `quark.tasks` gives the `Task` of a name, here only the names are used."""


_QUARK = MethodSpec(
    "Quark",
    rounds=Rounds(
        section="quark",
        version=lambda config: config.quark.version,
        iterations=lambda config: config.quark.iterations,
        samples=lambda config, i: config.quark.samples if i else config.quark.first_samples,
        place=lambda config, i: config.quark.explore_place if i else 1.0,
        whole_distribution=False,
        summary={
            "pool": ("mean_reward", "pool_mean_reward"),
            "training": ("lm_loss", "kl", "entropy"),
        },
    ),
    has_tokens=_tokens,
    place=lambda config: 1.0,
    reads_as_base="linear",
    look=("#D55E00", "X"),
)

BUILT_IN: dict[str, MethodSpec | str] = {
    "base": MethodSpec("base model", is_plain=True, reads_as_base="always", look=("#000000", "o")),
    "dapt": MethodSpec(
        "DAPT",
        parts={
            "dapt": Part(
                "quark.methods.dapt:fit", Finetuning, lambda config: config.baselines.dapt, label=0
            )
        },
        is_plain=True,
        look=("#0072B2", "s"),
    ),
    "ctrl": MethodSpec(
        "CTRL",
        has_own_model=True,
        decoder="quark.methods.ctrl:decoder",
        settings=CTRL,
        steering=lambda config: config.baselines.ctrl,
    ),
    "pplm": MethodSpec(
        "PPLM",
        parts={"classifier": Part("quark.methods.pplm:fit")},
        decoder="quark.methods.pplm:decoder",
        settings=PPLM,
        steering=lambda config: config.baselines.pplm,
        passes=lambda config: 2 + 3 * config.baselines.pplm.iterations,
        share=lambda config: config.baselines.pplm.share,
        look=("#009E73", "D"),
    ),
    "gedi": MethodSpec(
        "GeDi",
        parts={
            "gedi": Part(
                "quark.methods.gedi:fit",
                GeDiTraining,
                lambda config: config.baselines.gedi.training,
                has_tokens=True,
                readings=2,
            )
        },
        decoder="quark.methods.gedi:decoder",
        settings=GeDi,
        steering=lambda config: config.baselines.gedi,
        has_tokens=_tokens,
        needs_tokens=True,
        reads_as_base="always",
        passes=lambda config: 1 if is_linear(config) else 3,
        look=("#CC79A7", "^"),
    ),
    "dexperts": MethodSpec(
        "DExperts",
        parts={
            name: Part(
                "quark.methods.dapt:fit",
                Finetuning,
                lambda config: config.baselines.dexperts.training,
                label=label,
            )
            for label, name in enumerate(("expert", "anti-expert"))
        },
        decoder="quark.methods.dexperts:decoder",
        settings=Contrast,
        steering=lambda config: config.baselines.dexperts.contrast,
        within_base=True,
        reads_as_base="always",
        passes=lambda config: 3,
        look=("#E69F00", "v"),
    ),
    "lm_steer": "quark.methods.lm_steer:ONE_MAP",
    "dexperts_linear": "quark.methods.lm_steer:TWO_MAPS",
    "ppo": MethodSpec(
        "PPO",
        rounds=Rounds(
            section="baselines.ppo",
            version=lambda config: config.baselines.version,
            iterations=lambda config: config.baselines.ppo.iterations,
            samples=lambda config, i: (
                config.baselines.ppo.samples if i else config.quark.first_samples
            ),
            summary={"training": ("mean_reward", "kl", "kl_coef", "explained_variance")},
            begins_with="quark",
            learner="quark.methods.ppo:learner",
            settings=PPOTraining,
            training=lambda config: config.baselines.ppo.training,
        ),
        decoder="quark.methods.guided:decoder",
        settings=Place,
        steering=lambda config: config.baselines.ppo.steering if is_linear(config) else None,
        has_tokens=lambda config: config.quark.reward_tokens.form not in ("none", "embedding"),
        place=lambda config: config.baselines.ppo.place,
        within_base=True,
        reads_as_base="linear",
        also_reads=tuple(
            f"quark.{key}" for key in ("prompts", "first_samples", "sampling", "reward_tokens")
        ),
        look=("#56B4E9", "P"),
    ),
    "unlikelihood": MethodSpec("Unlikelihood", has_own_model=True, is_plain=True),
    "simctg": MethodSpec("SimCTG", has_own_model=True, is_plain=True),
    "quark": _QUARK,
    "quark_guided": MethodSpec(
        "guided Quark",
        trained_as="quark",
        decoder="quark.methods.guided:decoder",
        settings=Place,
        steering=lambda config: config.quark_guided,
        has_tokens=_tokens,
        needs_tokens=True,
        place=lambda config: config.quark_guided.place,
        within_base=True,
        reads_as_base="linear",
        passes=lambda config: 1 if is_linear(config) else 3,
        also_reads=("quark",),
    ),
    "quark_unlikelihood": replace(
        _QUARK, label="Quark+Unlikelihood", has_own_model=True, look=None
    ),
}
"""In the order of the published tables: specs, or the place of a spec in its method's own file."""

METHODS = Plugins("quark.methods", BUILT_IN, MethodSpec)
"""Methods by their names in `tasks.TASK.methods`, including those of other packages."""


def spec(name: str) -> MethodSpec:
    """The spec of a method.

    Raises:
        ValueError: there is no such method; the text gives the most similar name.
    """
    return METHODS[METHODS.known(name)]


def plugin_section(name: str) -> type[Section] | None:
    """The type of a method's settings under `plugins`; None: it has none there."""
    own = spec(name)
    return own.section or (None if name in BUILT_IN else own.settings)


def parts() -> dict[str, Part]:
    """The parts that methods learn from the corpus, by name.

    Raises:
        ConfigError: parts of two methods have the same name.
    """
    found: dict[str, Part] = {}
    for method, own in METHODS.items():
        for name, part in own.parts.items():
            if name in found:
                raise ConfigError(f"{method}: another method has a part {name}, too; rename one")
            found[name] = part
    return found


def in_rounds() -> dict[str, Rounds]:
    """The methods that sample and train in rounds."""
    return {name: method.rounds for name, method in METHODS.items() if method.rounds}


def learners() -> list[str]:
    """The methods in rounds that have a learner of their own; the other ones are Quark."""
    return [name for name, rounds in in_rounds().items() if rounds.learner]


def iterations(config: "WrittenConfig", name: str) -> int:
    """How many rounds a method has; 0: it has none."""
    rounds = spec(name).rounds
    return rounds.iterations(config) if rounds else 0
