"""The methods of the table, one `MethodSpec` each, and the tasks, by name."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quark.config.baselines import CTRL, PPLM, Finetuning, GeDi, GeDiTraining, PPOTraining
from quark.config.parsing import ConfigError
from quark.config.plugins import Plugins
from quark.config.quark import Contrast, Place
from quark.config.spec import MethodSpec, Part, Rounds, is_linear, learns_in_rounds
from quark.config.types import Section

if TYPE_CHECKING:
    from quark.config.whole import WrittenConfig


def _form(config: "WrittenConfig") -> str | None:
    form = config.quark.reward_tokens.form
    return None if form == "none" else form


TASKS: Plugins[Any] = Plugins(
    "quark.tasks",
    {
        "toxicity": "quark.tasks.toxicity:TASK",
        "sentiment_positive": "quark.tasks.sentiment:POSITIVE",
        "sentiment_negative": "quark.tasks.sentiment:NEGATIVE",
        "repetition": "quark.tasks.repetition:TASK",
        "reward": "quark.tasks.reward:TASK",
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
    form=_form,
    place=lambda config: 1.0,
    reads_as_base="linear",
    look=("#D55E00", "X"),
)

BUILT_IN: dict[str, MethodSpec | str] = {
    "base": MethodSpec("base model", is_plain=True, reads_as_base="always", look=("#000000", "o")),
    "best_of_n": "quark.methods.best_of_n:SPEC",
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
        form=_form,
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
    "caa": "quark.methods.caa:SPEC",
    "ppo": learns_in_rounds(
        "ppo",
        "PPO",
        training=PPOTraining,
        own=lambda config: config.baselines.ppo,
        where="baselines.ppo",
        summary=("mean_reward", "kl", "kl_coef", "explained_variance"),
        look=("#56B4E9", "P"),
    ),
    "rloo": "quark.methods.rloo:SPEC",
    "grpo": "quark.methods.grpo:SPEC",
    "dpo": "quark.methods.dpo:SPEC",
    "kto": "quark.methods.kto:SPEC",
    "raft": "quark.methods.raft:SPEC",
    "unlikelihood": MethodSpec("Unlikelihood", has_own_model=True, is_plain=True),
    "simctg": MethodSpec("SimCTG", has_own_model=True, is_plain=True),
    "quark": _QUARK,
    "quark_guided": MethodSpec(
        "guided Quark",
        trained_as="quark",
        decoder="quark.methods.guided:decoder",
        settings=Place,
        steering=lambda config: config.quark_guided,
        form=_form,
        needs_tokens=True,
        place=lambda config: config.quark_guided.place,
        within_base=True,
        reads_as_base="linear",
        passes=lambda config: 1 if is_linear(config) else 3,
        also_reads=("quark",),
        look=("#D62728", "*"),
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


def sampled_for(name: str) -> set[str]:
    """The methods whose samples a method needs: itself, and the one that it starts from."""
    own = spec(name)
    first = own.rounds.begins_with if own.rounds else None
    return {name} | {other for other in (own.trained_as, first) if other}


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
