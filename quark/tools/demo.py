"""Compare the base model and Quark side by side on a prompt of the user."""

import io
import re
import secrets
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quark.config import Config, Place, Precision, TaskName, for_task
from quark.core import paths
from quark.generation.decoding import Decoder, Plain
from quark.generation.sampler import sample
from quark.methods import decoder_of
from quark.models.checkpoint import base_sha256, load_policy, read_about
from quark.models.lm import BEST_PLACE, decode_after, encode, load_model, load_tokenizer
from quark.reporting.tables.text import printable
from quark.scorers import SERVICE, Scorer
from quark.stages import derive
from quark.stages.score import scorer_of
from quark.tasks import TASKS
from quark.tools.status import last_checkpoint

CACHE = "scores.sqlite"
TRAINED = Path(__file__).parent / "trained"
"""Checkpoints that are part of the package, one for a task (see docs/results/)."""
LOW = 0.5
"""A word whose own reward is below this is marked."""


class Trial:
    """The base model and Quark's model of a run, loaded once.

    Args:
        config: the run's configuration.
        task, method, seed: the run; its last iteration is used. If the run has no checkpoint yet,
            the package's checkpoint is used, if it has the same base model.
        results, resources: the directories of results and resources.
        memory_mb: memory in MB; limits the rows that are decoded together. A GPU uses its own
            memory as the limit.
        place: place of the reward tokens; 1: the best; other places decode as guided Quark.

    Attributes:
        checkpoint: the checkpoint that is used.

    Raises:
        ConfigError: the run does not exist.
        ScorerError: its scorer cannot work.
    """

    def __init__(
        self,
        config: Config,
        task: TaskName,
        method: str,
        seed: int,
        results: Path,
        resources: Path,
        memory_mb: int = 8000,
        place: float = BEST_PLACE,
    ) -> None:
        self.memory_mb = memory_mb
        chosen = for_task(config, task)
        model = resources / "models" / derive.model(config, task, method)
        self.checkpoint = _checkpoint(config, task, method, seed, results, model)
        self.tokenizer = load_tokenizer(model)
        self.decoders = {
            "base": Plain(load_model(model, config.precision)),
            method: _decoder(model, self.checkpoint, config.precision, place),
        }
        self.sampling = next(iter(chosen.evaluation.decoding.values()))
        self.reward = TASKS[task].reward
        name = config.tasks[task].scorer
        folder = resources / "classifiers" / name
        self.scorer: Scorer = scorer_of(
            derive.score(config, name),
            folder if name in config.classifiers else None,
            resources / CACHE,
        )

    def table(self, prompt: str, samples: int) -> Table:
        """Return new continuations of a prompt by both models, with their rewards, the best first.

        Raises:
            PromptLengthError: the prompt is empty, or leaves too little room.
        """
        columns = [self._continue(each, prompt, samples) for each in self.decoders.values()]
        headers = [header for name in self.decoders for header in ("reward", name)]
        shown = Table(*headers, title=Text(printable(prompt)), show_lines=True)
        for written in zip(*columns, strict=True):
            shown.add_row(*(cell for reward, text in written for cell in (f"{reward:.2f}", text)))
        return shown

    def _continue(self, decoder: Decoder, prompt: str, samples: int) -> list[tuple[float, Text]]:
        """Return rewards and texts of one model's continuations, the best first."""
        (ids,) = encode(self.tokenizer, [prompt])
        token = None if decoder.policy.reward_tokens is None else 0
        (found,) = sample(
            decoder,
            [decoder.policy.condition(ids, token)],
            ["it"],
            samples,
            self.sampling,
            seed_name=f"try/{secrets.token_hex(8)}",
            memory_mb=self.memory_mb,
        )
        texts = decode_after(self.tokenizer, [ids] * samples, found.ids)
        rewards = self.reward(self.scorer.score([prompt] * samples, texts)).tolist()
        best_first = sorted(zip(rewards, texts, strict=True), key=lambda pair: -pair[0])
        return [(reward, self._marked(printable(text.strip()))) for reward, text in best_first]

    def _marked(self, text: str) -> Text:
        """Return a text with its words of low reward in red; a service is not asked for words."""
        shown = Text(text)
        words = list(re.finditer(r"\S+", text))
        if words and self.scorer.name != SERVICE:
            scores = self.scorer.score([""] * len(words), [word[0] for word in words])
            for word, reward in zip(words, self.reward(scores), strict=True):
                if reward < LOW:
                    shown.stylize("bold red", *word.span())
        return shown


def picture(table: Table, command: str, width: int) -> str:
    """Return a table as the SVG of a terminal, `width` characters wide; it loads no fonts."""
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(table)
    made = console.export_svg(title=command, unique_id="quark")
    return re.sub(r"@font-face \{.*?\}", "", made, flags=re.DOTALL)


def _decoder(model: Path, checkpoint: Path, precision: Precision, place: float) -> Decoder:
    """Return the policy under its best reward token; at another place, guided Quark."""
    if place != BEST_PLACE:
        return decoder_of("quark_guided")(model, [checkpoint], Place(place=place), precision)
    policy = load_policy(model, checkpoint, precision)
    policy.steer()
    return Plain(policy)


def _checkpoint(
    config: Config, task: TaskName, method: str, seed: int, results: Path, model: Path
) -> Path:
    """Return the run's checkpoint; if it has none yet, the package's for the same base model."""
    begun = paths.checkpoints(paths.run(results, task, method, seed))
    trained = TRAINED / task
    if method != "quark" or begun or not trained.is_dir():
        return last_checkpoint(config, task, method, seed, results)
    if read_about(trained)["base_sha256"] != base_sha256(model):
        return last_checkpoint(config, task, method, seed, results)
    return trained
