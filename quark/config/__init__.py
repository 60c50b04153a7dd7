"""The typed configuration: what a user may write in `config/*.yaml`, and nothing else.

It imports no torch. Every model is frozen and refuses unknown keys, so a misspelt key stops
the run before the first job; the error names its file and the nearest key that exists. The JSON
schema in `workflow/schemas/config.schema.json` is generated from these models (`quark schema`).

    types       building blocks of every part
    resources   models and prompts, and their sources
    quark       Quark, and the parts that its baselines share
    baselines   the methods that the table compares Quark with
    registry    the methods of the table with their properties, and the names of the tasks
    precision   which precision `auto` becomes
    site        what a profile says of the machines
    plugins     methods, tasks and scorers that other packages add
    experiment  tasks, evaluation, ablations and tuning
    whole       the whole configuration, and what its parts demand of each other
    parsing     one YAML file
    reading     from YAML files to the checked configuration, with errors that say what to do
"""

from quark.config.baselines import (
    CTRL,
    PPLM,
    PPO,
    Baselines,
    Corpus,
    CorpusRows,
    Finetuning,
    GeDi,
    GeDiTraining,
    PPOTraining,
)
from quark.config.experiment import (
    Ablation,
    Benchmark,
    Evaluation,
    Mauve,
    Method,
    Task,
    TaskName,
    Tuning,
)
from quark.config.parsing import ConfigError, read
from quark.config.plugins import Plugins
from quark.config.quark import (
    Contrast,
    LoRA,
    Optimisation,
    Place,
    Quark,
    RewardTokens,
    Sampling,
    Training,
)
from quark.config.reading import (
    check,
    for_task,
    load,
    overlay,
    resolved,
    variants,
)
from quark.config.resources import (
    Classifier,
    Finetuned,
    Hub,
    Label,
    ModelSource,
    Package,
    Perspective,
    Prompts,
    PromptSource,
    RandomModel,
    SortedSplit,
    Sorting,
    Source,
    Split,
    Unlikelihood,
)
from quark.config.types import (
    AskedPrecision,
    Count,
    Decay,
    Distinct,
    Name,
    NonNegative,
    Positive,
    Precision,
    Probability,
    Section,
)
from quark.config.whole import Config, WrittenConfig

__all__ = [
    "CTRL",
    "PPLM",
    "PPO",
    "Ablation",
    "AskedPrecision",
    "Baselines",
    "Benchmark",
    "Classifier",
    "Config",
    "ConfigError",
    "Contrast",
    "Corpus",
    "CorpusRows",
    "Count",
    "Decay",
    "Distinct",
    "Evaluation",
    "Finetuned",
    "Finetuning",
    "GeDi",
    "GeDiTraining",
    "Hub",
    "Label",
    "LoRA",
    "Mauve",
    "Method",
    "ModelSource",
    "Name",
    "NonNegative",
    "Optimisation",
    "PPOTraining",
    "Package",
    "Perspective",
    "Place",
    "Plugins",
    "Positive",
    "Precision",
    "Probability",
    "PromptSource",
    "Prompts",
    "Quark",
    "RandomModel",
    "RewardTokens",
    "Sampling",
    "Section",
    "SortedSplit",
    "Sorting",
    "Source",
    "Split",
    "Task",
    "TaskName",
    "Training",
    "Tuning",
    "Unlikelihood",
    "WrittenConfig",
    "check",
    "for_task",
    "load",
    "overlay",
    "read",
    "resolved",
    "variants",
]
