"""What the rules need, asked of the graph: from wildcards to files, and from values to options."""

ITERATION, CORPUS, PART, VARIED_PART, PREDICTED, EVALUATION = (
    f"results/{pattern}"
    for pattern in (
        paths.ITERATION,
        paths.CORPUS,
        paths.PART,
        paths.VARIED_PART,
        paths.PREDICTED,
        paths.EVALUATION,
    )
)
QUARK = ITERATION.replace("{method}", "quark")


# ---------------------------------------------------------------------------- fetched once
def local_files(*sources):
    """What a model or prompts are made from on this machine: a change makes them anew."""
    return [source.local for source in sources if source.local]


def unsorted(name):
    """Prompts as they are fetched, whatever they are sorted by afterwards, or said to be."""
    return CONFIG.prompts[name].model_copy(update={"sorted": None, "roughly": None})


def model(wildcards):
    """The model that a method, or the whole task, starts from."""
    method = family(getattr(wildcards, "method", "base"))
    return f"resources/models/{derive.model(CONFIG, wildcards.task, method)}"


def judge(wildcards):
    """The model that judges fluency."""
    return f"resources/models/{CONFIG.tasks[wildcards.task].judge}"


def prompts(wildcards):
    """The folder of a task's prompts, a Parquet file for each split."""
    return f"resources/prompts/{CONFIG.tasks[wildcards.task].prompts}"


def texts(wildcards):
    """The folder of the corpus's plain texts, if it has any."""
    name = GRAPH.tasks[wildcards.task].baselines.corpus.texts
    return f"resources/prompts/{name}" if name else []


def classifier(name):
    """The folder of a scorer that is a classifier."""
    return [f"resources/classifiers/{name}"] if name in CONFIG.classifiers else []


def score_cache(name):
    """The option that keeps the scores of a service."""
    return option("cache", CACHE if name == SERVICE else "")


# -------------------------------------------------------------------------------- iterations
def of(wildcards):
    """The configuration of a job."""
    return GRAPH.config_of(wildcards.task, wildcards.method)


def iterated(methods=GRAPH.iterated):
    """A pattern of these methods, and of their variants."""
    return "|".join(map(re.escape, GRAPH.with_variants(methods)))


def checkpoint_before(wildcards):
    """The checkpoint that an iteration starts from; none: the base model."""
    task, method, this = wildcards.task, wildcards.method, int(wildcards.iteration)
    count = GRAPH.iterations(task, method)
    if this >= count:
        raise WorkflowError(
            f"{task}, {method}: no iteration {this}; they count from 0, and this "
            f"configuration's last is {count - 1}"
        )
    if this == 0:
        return []
    return GRAPH.of_iteration(task, method, int(wildcards.seed), this - 1, "checkpoint")


def of_this_iteration(name):
    """A function that gives file `name` of the rule's iteration."""
    return lambda w: GRAPH.of_iteration(
        w.task, w.method, int(w.seed), int(w.iteration), name
    )


def so_far(name):
    """A function that gives file `name` of a method's iterations 0 to the rule's own."""
    return lambda w: GRAPH.of_iterations(
        w.task, w.method, int(w.seed), [name], int(w.iteration) + 1
    )


# ------------------------------------------------------------------------------- evaluations
def published(task):
    """The paper's numbers, if there are any of the task."""
    return f"config/published/{task}.csv" if TASKS[task].published.table else []


def optional(wildcards, name):
    """File `name` of an evaluation, if its task or its configuration asks for it."""
    asked = GRAPH.wants(wildcards.task, wildcards.method, name)
    return f"{EVALUATION.format(**dict(wildcards))}/{name}" if asked else []


def tried(task):
    """The methods of a tuning's table."""
    try:
        return GRAPH.tried(task)
    except configuration.ConfigError as error:
        raise WorkflowError(str(error)) from None


def shard_files(name):
    """File `name` of all shards, beside where the whole one goes."""
    folder, file = name.rsplit("/", 1)
    return [f"{folder}/shard-{i + 1}-of-{SHARDS}/{file}" for i in range(SHARDS)]


# ---------------------------------------------------------------------------- whole runs
def tables():
    """What a whole run makes: the table of each task, and with it costs and tracking."""
    return [f"results/tables/{task}.csv" for task in CONFIG.tasks]


def pages():
    """The page of each task."""
    return [f"results/report/{task}.html" for task in CONFIG.tasks]


def tracked(task):
    """The marks of all runs of a task in MLflow."""
    return expand(
        "results/tracking/{task}/{method}/seed-{seed}.json",
        task=task,
        method=CONFIG.tasks[task].methods,
        seed=CONFIG.seeds,
    )
