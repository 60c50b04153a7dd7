"""Input functions of the rules: they turn wildcards into files, by the graph, and values into options."""

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
    """The local files that a model or prompts are made from; a change makes the model or prompts again."""
    return [local(source.local) for source in sources if source.local]


def model(wildcards):
    """The model that a method, or the whole task, starts from."""
    method = family(getattr(wildcards, "method", "base"))
    return f"resources/models/{derive.model(CONFIG, wildcards.task, method)}"


def judge(wildcards):
    """The judge: the model whose perplexity measures fluency."""
    return f"resources/models/{CONFIG.tasks[wildcards.task].judge}"


def prompts(wildcards):
    """The folder of a task's prompts, a Parquet file for each split."""
    return f"resources/prompts/{CONFIG.tasks[wildcards.task].prompts}"


def prompts_mb(name):
    """The megabytes to fetch prompts: 2 kB for each, and 2 GB."""
    return 2000 + (CONFIG.prompts[name].roughly or 0) // 500


def texts(wildcards):
    """The folder of the corpus's plain texts, if it has any."""
    name = GRAPH.tasks[wildcards.task].baselines.corpus.texts
    return f"resources/prompts/{name}" if name else []


def classifier(name):
    """The folder of a scorer that is a classifier."""
    return [f"resources/classifiers/{name}"] if name in CONFIG.classifiers else []


def score_cache(name):
    """The option that names the cache of a service's scores."""
    return option("cache", CACHE if name == SERVICE else "")


# -------------------------------------------------------------------------------- iterations
def of(wildcards):
    """The configuration of a job."""
    return GRAPH.config_of(wildcards.task, wildcards.method)


def iterated(methods=GRAPH.iterated):
    """A pattern that matches these methods and their variants."""
    return "|".join(map(re.escape, GRAPH.with_variants(methods)))


def checkpoint_before(wildcards):
    """The checkpoint that an iteration starts from; none: iteration 0 starts from the base model."""
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
    """A function that returns file `name` of the rule's iteration."""
    return lambda w: GRAPH.of_iteration(
        w.task, w.method, int(w.seed), int(w.iteration), name
    )


def so_far(name):
    """A function that returns file `name` of a method's iterations, from 0 to the rule's own."""
    return lambda w: GRAPH.of_iterations(
        w.task, w.method, int(w.seed), [name], int(w.iteration) + 1
    )


# ------------------------------------------------------------------------------- evaluations
def published(task):
    """The file of the paper's numbers, if the task has published numbers."""
    return local(f"config/published/{task}.csv") if TASKS[task].published.table else []


def optional(wildcards, name):
    """File `name` of an evaluation, if its task or its configuration needs it."""
    asked = GRAPH.wants(wildcards.task, wildcards.method, name)
    return f"{EVALUATION.format(**dict(wildcards))}/{name}" if asked else []


def tried(task):
    """The methods in the table of a tuning."""
    try:
        return GRAPH.tried(task)
    except configuration.ConfigError as error:
        raise WorkflowError(str(error)) from None


def shard_files(name):
    """File `name` of all shards, in folders beside the merged file."""
    folder, file = name.rsplit("/", 1)
    return [f"{folder}/shard-{i + 1}-of-{SHARDS}/{file}" for i in range(SHARDS)]


# ---------------------------------------------------------------------------- whole runs
def tables():
    """The targets of a whole run: the table of each task. Costs and tracking are made with it."""
    return [f"results/tables/{task}.csv" for task in CONFIG.tasks]


def pages():
    """The page of each task."""
    return [f"results/report/{task}.html" for task in CONFIG.tasks]


def tracked(task):
    """The files that record that the runs of a task are logged in MLflow."""
    return expand(
        "results/tracking/{task}/{method}/seed-{seed}.json",
        task=task,
        method=CONFIG.tasks[task].methods,
        seed=CONFIG.seeds,
    )
