"""Quark, and the parts of an experiment that its baselines share with it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from quark.config.types import Count, Decay, NonNegative, Positive, Probability, Section


class Sampling(Section):
    """How continuations are drawn. Nothing is left to a library's default (protocol 9.1)."""

    temperature: Positive = Field(description="divides the logits")
    top_k: Annotated[int, Field(ge=0)] = Field(description="keep the k likeliest tokens; 0: off")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        description="keep the likeliest tokens up to this probability; 1: off"
    )
    penalty_alpha: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="above 0: contrastive search among the `top_k` likeliest tokens (Su et al. "
        "2022), without random draws; only in evaluation, of methods without reward tokens and "
        "guides",
    )
    min_new_tokens: Annotated[int, Field(ge=0)] = Field(
        description="a text cannot end before so many tokens"
    )
    max_new_tokens: Count = Field(description="length of a continuation in tokens")

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens exceeds max_new_tokens")
        return self

    @model_validator(mode="after")
    def _a_search_draws_nothing(self) -> Self:
        if self.penalty_alpha and not (self.top_k and self.temperature == self.top_p == 1):
            raise ValueError("penalty_alpha needs top_k above 0, temperature 1 and top_p 1")
        return self


class RewardTokens(Section):
    """How the policy is conditioned on a quantile (see `quark.models.reward_tokens`)."""

    form: Literal["embedding", "linear", "sink", "none"] = Field(
        description="embedding: a row before the prompt, as in the paper; linear: a place of "
        "one linear map of the frozen model's last hidden state; sink: a shift of the keys "
        "and values of the prompt's first position; none: no reward tokens"
    )
    first_layer: Annotated[int, Field(ge=0)] = Field(
        default=0, description="sink: layers below it are not changed; else unused"
    )


class LoRA(Section):
    """Low-rank adapters (Hu et al. 2022) that learn in place of the model's own parameters."""

    rank: Count = Field(
        description="of the low-rank adapters, which learn in the trained layers at `learning_rate`"
    )
    alpha: Count = Field(description="a map's change is alpha / rank times B A")


class Optimisation(Section):
    """Adam, with linear warm-up and decay."""

    batch: Count = Field(description="rows in one optimiser step")
    learning_rate: Positive = Field(description="of the model's parameters")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        description="steps in which the rates rise linearly; then they fall linearly, to zero "
        "at the last step"
    )
    betas: tuple[Decay, Decay] = Field(strict=False, description="of Adam")
    eps: Positive = Field(description="of Adam")
    max_grad_norm: Positive | None = Field(
        description="gradients are scaled to at most this norm; null: never"
    )
    gradient_checkpointing: bool = Field(
        description="compute each layer's activations again in the backward pass: a third more "
        "time, less memory; not with sinks"
    )
    trained_layers: Annotated[int, Field(ge=0)] | None = Field(
        description="how many top layers learn; null: all parameters; 0: none, required for "
        "linear reward tokens"
    )


class Training(Optimisation):
    """The learning step of one Quark iteration."""

    sequences: Count = Field(description="pool rows trained on in each iteration")
    lora: LoRA | None = Field(
        None, description="adapters in the trained layers learn; null: the layers themselves"
    )
    token_learning_rate: Positive = Field(description="of the reward tokens")
    kl_coef: NonNegative = Field(description="beta, weight of the KL to the base model")
    kl_direction: Literal["policy_to_base", "base_to_policy"] = Field(
        description="policy_to_base: as the official code runs it; base_to_policy: as the paper "
        "writes it"
    )
    entropy_coef: NonNegative = Field(description="alpha, weight of the entropy bonus")
    reference_cache: bool = Field(
        description="keep the base model's last hidden states of the pool on disk (2 d bytes a "
        "token in bf16); false: compute them again, for small disks"
    )
    quantile_shares: tuple[Probability, ...] | None = Field(
        strict=False,
        description="share of each quantile in training, sum 1; null: as in the pool, 1/K each",
    )
    restart: bool = Field(
        default=False,
        description="each iteration trains the base model anew on the pool so far; false: it "
        "continues from the iteration before, as in the paper",
    )
    held_out_prompts: Annotated[int, Field(ge=0)] = Field(
        description="prompts held out of training; their samples measure what the reward tokens "
        "have learned"
    )

    @model_validator(mode="after")
    def _adapters_have_layers(self) -> Self:
        if self.lora is not None and self.trained_layers == 0:
            raise ValueError("lora needs layers: set trained_layers to null or above 0")
        return self


class Quark(Section):
    """Quark (Lu et al. 2022): explore, quantize, learn."""

    version: int = Field(description="raise it when the method's code changes meaning")
    iterations: Count = Field(
        description="rounds of explore, quantize, learn; the learning rate decays over all of them"
    )
    quantiles: Annotated[int, Field(ge=2)] = Field(
        description="K, the number of quantiles and reward tokens"
    )
    reward_tokens: RewardTokens
    prompts: Count | None = Field(description="the first n training prompts (shuffled); null: all")
    first_samples: Count = Field(
        description="samples of each prompt in iteration 0, from the base model"
    )
    samples: Count = Field(
        description="samples of each prompt in later iterations, drawn at `explore_place`"
    )
    sampling: Sampling
    explore_place: float = Field(
        default=1.0,
        description="the place at which later iterations sample with linear reward tokens; 1: the "
        "best token, as in the paper; below 0: on the side of the worst token, whose samples show "
        "more of what must be unlearned",
    )
    quantize: Literal["pool", "iteration"] = Field(
        default="pool",
        description="pool: the whole pool is cut into quantiles, as in the paper; iteration: each "
        "iteration's samples are cut separately",
    )
    max_failed_scores: Probability = Field(
        description="a larger share of unscored samples stops the iteration"
    )
    shuffle: bool = Field(
        False, description="rows go into random quantiles, whatever their reward (an ablation)"
    )
    training: Training

    @model_validator(mode="after")
    def _it_explores_by_chance(self) -> Self:
        if self.sampling.penalty_alpha:
            raise ValueError("sampling.penalty_alpha must be 0: exploring draws its samples")
        return self

    @model_validator(mode="after")
    def _one_share_for_each_quantile(self) -> Self:
        shares = self.training.quantile_shares
        if shares is not None and (len(shares) != self.quantiles or abs(sum(shares) - 1) > 1e-6):
            raise ValueError("training.quantile_shares needs one share for each quantile, sum 1")
        return self

    @model_validator(mode="after")
    def _the_pool_is_large_enough(self) -> Self:
        if self.prompts is not None and self.prompts <= self.training.held_out_prompts:
            raise ValueError(
                f"training.held_out_prompts = {self.training.held_out_prompts} leaves none of "
                f"{self.prompts} prompts to train on"
            )
        if self.prompts is not None and self.prompts * self.first_samples < self.quantiles:
            raise ValueError(
                f"prompts x first_samples = {self.prompts * self.first_samples} samples cannot be "
                f"cut into quantiles = {self.quantiles}"
            )
        return self

    @model_validator(mode="after")
    def _the_right_things_learn(self) -> Self:
        form, layers = self.reward_tokens.form, self.training.trained_layers
        if form == "none" and layers == 0:
            raise ValueError(
                "training.trained_layers = 0 leaves nothing to learn: reward_tokens.form is none"
            )
        if form == "linear" and layers != 0:
            raise ValueError(
                f"training.trained_layers = {'null' if layers is None else layers}, but with "
                "reward_tokens.form = linear the model is frozen: set it to 0, or the form to "
                "embedding"
            )
        return self

    @model_validator(mode="after")
    def _only_linear_tokens_have_places(self) -> Self:
        if self.explore_place != 1 and self.reward_tokens.form != "linear":
            raise ValueError(
                f"explore_place = {self.explore_place:g} needs reward_tokens.form = linear: other "
                "forms sample under the best token, at place 1"
            )
        return self

    @model_validator(mode="after")
    def _the_warm_up_ends(self) -> Self:
        training = self.training
        schedules = 1 if training.restart else self.iterations
        steps = schedules * -(-training.sequences // training.batch)
        if training.warmup_steps >= steps:
            raise ValueError(
                f"training.warmup_steps = {training.warmup_steps}, but there are {steps} steps in "
                + ("an iteration" if training.restart else "all iterations")
            )
        return self


class Place(Section):
    """Where to decode on the axis from the worst reward token (-1) to the best (1)."""

    place: float = Field(
        description="c in base + c/2 (best token - worst token); 0: the base model; 1: the best "
        "token of linear ones; beyond 1: extrapolated. Only tokens within the base model's "
        "nucleus are drawn"
    )


class Contrast(Section):
    """Steering by wanted minus unwanted logits, as in DExperts (Liu et al. 2021)."""

    alpha: float = Field(
        description="how strongly the contrast of two models or tokens steers; 0: the base model"
    )
