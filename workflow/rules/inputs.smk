"""Functions of the rules: which files a target needs."""


def local_files(*sources):
    """What a model or prompts are made from on this machine: a change makes them anew."""
    return [source.local for source in sources if source.local]


def unsorted(name):
    """Prompts as they are fetched, whatever they are sorted by afterwards, or said to be."""
    return CONFIG.prompts[name].model_copy(update={"sorted": None, "roughly": None})


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


ITERATED = registry.in_rounds()  # methods that sample and train in rounds


def family(method):
    """The method that a variant is of; any other is its own."""
    return method.split(".")[0]


def config_of(task, method):
    """The configuration of a task's method, or of a variant of a method."""
    return VARIANTS.get((task, method), CONFIGS[task])


def of(wildcards):
    """The configuration of a job."""
    return config_of(wildcards.task, wildcards.method)


def iterated(methods=ITERATED):
    """A pattern of these methods, and of their variants."""
    variants = [name for _, name in VARIANTS if family(name) in methods]
    return "|".join(map(re.escape, [*methods, *variants]))


def iterations(task, method):
    """How many rounds of sampling and training a method has."""
    return registry.iterations(config_of(task, method), family(method))


def classifier(name):
    """The folder of a scorer that is a classifier."""
    return [f"resources/classifiers/{name}"] if name in CONFIG.classifiers else []


def score_cache(name):
    """The option that keeps the scores of a service."""
    return option("cache", CACHE if name == SERVICE else "")


def texts(wildcards):
    """The folder of the corpus's plain texts, if it has any."""
    name = CONFIGS[wildcards.task].baselines.corpus.texts
    return f"resources/prompts/{name}" if name else []


def trained_as(task, method):
    """The method whose training a method, or a variant, decodes with; mostly its own."""
    own = registry.spec(family(method)).trained_as or family(method)
    return own if trains_alike(task, method, own) else method


def trains_alike(task, method, own):
    """Whether a variant leaves the training of method `own` as it is."""
    here, there = CONFIGS[task], config_of(task, method)
    if own in ITERATED:
        count = registry.iterations(here, own)
        return count == registry.iterations(there, own) and all(
            stage(here, task, own, 0, i) == stage(there, task, own, 0, i)
            for i in range(count)
            for stage in derive.ROUNDS[registry.spec(own).rounds.kind]
        )
    return all(
        derive.fit(here, task, part, 0) == derive.fit(there, task, part, 0)
        for part in registry.spec(own).parts
    )


def explores_alike(task, method, seed):
    """Whether a variant's iteration 0 draws the very samples that its method's own does."""
    wanted = [task, family(method), int(seed), 0]
    one, other = (
        derive.explore(c, *wanted) for c in (CONFIGS[task], config_of(task, method))
    )
    return one == other


def of_iteration(task, method, seed, iteration, name):
    """File `name` of one iteration; what two methods would draw alike is drawn once."""
    explored = name.split(".")[0] in ("samples", "scores")
    if explored and iteration == 0:
        other = derive.explorer(family(method), 0)
        if other != family(method) or explores_alike(task, method, seed):
            method = other
    return f"{ITERATION}/{name}".format(
        task=task, method=method, seed=seed, iteration=iteration
    )


def checkpoint_before(wildcards):
    """The checkpoint that an iteration starts from; none: the base model."""
    last = int(wildcards.iteration) - 1
    task, method = wildcards.task, wildcards.method
    count = iterations(task, method)
    if last + 1 >= count:
        raise WorkflowError(
            f"{task}, {method}: no iteration {last + 1}; they count from 0, and this "
            f"configuration's last is {count - 1}"
        )
    if last < 0:
        return []
    return of_iteration(task, method, wildcards.seed, last, "checkpoint")


def checkpoints_of(wildcards):
    """The checkpoints that a method is evaluated with; the base model has none."""
    task, seed = wildcards.task, wildcards.seed
    method = trained_as(task, wildcards.method)
    if family(method) in ITERATED:
        last = iterations(task, method) - 1
        return [of_iteration(task, method, seed, last, "checkpoint")]
    return parts_of(task, method, seed, "checkpoint")


def parts_of(task, method, seed, name):
    """File `name` of each part that a method learns from the corpus."""
    own = method == family(method)
    return expand(
        f"{PART if own else VARIED_PART}/{name}",
        task=task,
        method=method,
        part=list(registry.spec(family(method)).parts),
        seed=seed,
    )


def of_this_iteration(name):
    """A function that gives file `name` of the rule's iteration."""
    return lambda w: of_iteration(w.task, w.method, w.seed, int(w.iteration), name)


def so_far(name):
    """A function that gives file `name` of a method's iterations 0 to the rule's own."""
    return lambda w: [
        of_iteration(w.task, w.method, w.seed, i, name)
        for i in range(int(w.iteration) + 1)
    ]


def last_pool(wildcards):
    """The pool that holds the samples of all iterations."""
    last = iterations(wildcards.task, wildcards.method) - 1
    return of_iteration(
        wildcards.task, wildcards.method, wildcards.seed, last, "pool.parquet"
    )


def of_all_iterations(*names):
    """A function that gives some files of all seeds and iterations of a method."""
    return lambda w: [
        of_iteration(w.task, w.method, seed, i, name)
        for seed in CONFIG.seeds
        for i in range(iterations(w.task, w.method))
        for name in names
    ]


def memo_so_far(wildcards):
    """Hidden states of the base model for the pool: kept in sampling, and in training before."""
    place = wildcards.task, wildcards.method, wildcards.seed
    last = int(wildcards.iteration)
    kept = [(i, "samples") for i in range(last + 1)]
    kept += [(i, "training") for i in range(last)]
    return [of_iteration(*place, i, f"{stage}.memo.safetensors") for i, stage in kept]


def training_costs(task, method, seed):
    """What a method cost before it was evaluated, as the stages wrote it down."""
    method = trained_as(task, method)
    start = derive.model(CONFIG, task, family(method))
    trained = [n for n in derive.lineage(CONFIG, start) if n in FINETUNED]
    return expand("results/models/{name}/training.json", name=trained) + method_costs(
        task, method, seed
    )


def method_costs(task, method, seed):
    """What it cost beside the model that it starts from."""
    if family(method) in ITERATED:
        return [
            of_iteration(task, method, seed, i, f"{stage}.json")
            for i in range(iterations(task, method))
            for stage in ("samples", "scores", "training")
        ]
    if not registry.spec(family(method)).parts:
        return []
    explored = expand(
        f"{QUARK}/{{stage}}.json",
        task=task,
        seed=seed,
        iteration=0,
        stage=["samples", "scores"],
    )
    parts = parts_of(task, method, seed, "training.json")
    return [*explored, f"{CORPUS}/corpus.json".format(task=task, seed=seed), *parts]


def evaluated(task, name, methods=None, splits=None, seeds=CONFIG.seeds):
    """File `name` of all evaluations: by split, decoding, method and seed."""
    chosen = methods or CONFIG.tasks[task].methods
    decoded = {
        method: derive.decodings(config_of(task, method), family(method))
        for method in chosen
    }
    return [
        f"{EVALUATION}/{name}".format(
            task=task, method=method, seed=seed, split=split, decoding=decoding
        )
        for split in splits or CONFIG.tasks[task].splits
        for decoding in dict.fromkeys(n for names in decoded.values() for n in names)
        for method in chosen
        for seed in seeds
        if decoding in decoded[method]
    ]


def published(task):
    """The paper's numbers, if there are any of the task."""
    return f"config/published/{task}.csv" if TASKS[task].published.table else []


def measured(task, methods=None, splits=None):
    """What a table reads beside the metrics of all evaluations."""
    return [
        file
        for name in ("settings.json", "prompts.parquet")
        for file in evaluated(task, name, methods, splits)
    ]


def logged(wildcards):
    """What MLflow keeps of a run beside its table: metrics, iterations and what it learnt."""
    task, method, seed = wildcards.task, wildcards.method, wildcards.seed
    found = evaluated(task, "metrics.json", [method], seeds=[seed])
    if method in ITERATED:
        count = iterations(task, method)
        found += [
            of_iteration(task, method, seed, i, f"{stage}.json")
            for i in range(count)
            for stage in registry.spec(method).rounds.stages
        ]
    if method in derive.QUARKS:
        found.append(of_iteration(task, method, seed, count - 1, "checkpoint"))
    return found


def sweep(name):
    """The methods of an ablation's table: the base model, Quark, and Quark's variants."""
    variants = [
        f"quark.{name}.{variant}" for variant in CONFIG.ablations[name].variants
    ]
    return ["base", "quark", *variants]


def tried(task):
    """The methods of a tuning's table: the base model and the tries."""
    if task not in CONFIG.tuning:
        raise WorkflowError(f"tuning.{task} is missing: which settings to try")
    tries = CONFIG.tuning[task].variants
    return ["base", *(name for name in tries if (task, name) in VARIANTS)]


def predictions(task, method, seed, split):
    """What a method predicts of a split's real continuations, if its prompts have any."""
    if CONFIG.tasks[task].prefix is None:
        return []
    return [
        f"{PREDICTED}/predictions.parquet".format(
            task=task, method=method, seed=seed, split=split
        )
    ]


def optional(wildcards, name):
    """File `name` of an evaluation, if its task or its configuration asks for it."""
    asked = wanted(wildcards.task, of(wildcards), name)
    return f"{EVALUATION.format(**dict(wildcards))}/{name}" if asked else []


def wanted(task, chosen, name):
    """Whether file `name` is made for the evaluations of a task."""
    own = CONFIG.tasks[task]
    if Path(name).stem == "second_scores":
        return own.second_scorer is not None
    return own.prefix is not None and chosen.evaluation.mauve is not None


def all_costs(task):
    """What all stages of a task cost."""
    stages = ("generations.json", "scores.json", "likelihoods.json")
    chosen = CONFIG.tasks[task].methods
    trained = [
        cost
        for method in chosen
        for seed in CONFIG.seeds
        for cost in training_costs(task, method, seed)
    ]
    asked = [
        f"{Path(file).parent}/{name}"
        for name in ("second_scores.json", "mauve.json")
        for file in evaluated(task, "metrics.json")
        if wanted(task, CONFIGS[task], name)
    ]
    predicted = [
        cost.replace("predictions.parquet", "predictions.json")
        for method in chosen
        for seed in CONFIG.seeds
        for split in CONFIG.tasks[task].splits
        for cost in predictions(task, method, seed, split)
    ]
    return (
        list(dict.fromkeys(trained))
        + predicted
        + asked
        + [cost for stage in stages for cost in evaluated(task, stage)]
    )


def shard_files(name):
    """File `name` of all shards, beside where the whole one goes."""
    folder, file = name.rsplit("/", 1)
    return [f"{folder}/shard-{i + 1}-of-{SHARDS}/{file}" for i in range(SHARDS)]


def compared(task):
    """Whose samples stand side by side on a task's page: the base model's and Quark's."""
    shown = ("base", *derive.QUARKS)
    return [method for method in CONFIG.tasks[task].methods if method in shown]


def shown(task, name):
    """File `name` of the samples on a task's page: of the first split, decoding and seed."""
    return [
        f"{EVALUATION}/{name}".format(
            task=task,
            method=method,
            seed=CONFIG.seeds[0],
            split=CONFIG.tasks[task].splits[0],
            decoding=next(iter(CONFIGS[task].evaluation.decoding)),
        )
        for method in compared(task)
    ]


def has_counterparts(task):
    """Whether the paper gives numbers of the base model and of another, on one of our splits."""
    given, chosen = TASKS[task].published, CONFIG.tasks[task]
    return (
        "base" in chosen.methods
        and given.decoding in CONFIGS[task].evaluation.decoding
        and any(split in given.splits for split in chosen.splits)
        and any(m in given.methods for m in chosen.methods if m != "base")
    )


def figures(task):
    """The figures of a task's page."""
    trained = [m for m in CONFIG.tasks[task].methods if m in derive.QUARKS]
    drawn = [f"results/figures/{task}/tradeoff.svg"]
    if has_counterparts(task):
        drawn.append(f"results/figures/{task}/published.svg")
    for method in trained:
        drawn.append(f"results/figures/{task}/{method}/curves.svg")
        drawn += [
            f"results/figures/{task}/{method}/seed-{seed}/rewards.svg"
            for seed in CONFIG.seeds
        ]
    return drawn
