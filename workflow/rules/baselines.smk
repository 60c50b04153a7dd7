"""Baselines: the corpus, the parts that are trained on it, and PPO's iterations."""


rule corpus:
    input:
        prompts=prompts,
        texts=texts,
        samples=f"{QUARK}/samples.parquet".replace("{iteration}", "0"),
        scores=f"{QUARK}/scores.parquet".replace("{iteration}", "0"),
        model=model,
        classifier=lambda w: classifier(CONFIG.tasks[w.task].scorer),
    output:
        corpus=f"{CORPUS}/corpus.parquet",
        cost=f"{CORPUS}/corpus.json",
    log:
        "logs/{task}/corpus/seed-{seed}/corpus.log",
    benchmark:
        "results/benchmarks/jobs/{task}/corpus/seed-{seed}/corpus.tsv"
    conda:
        CONDA
    threads: lambda w, input: CORES if input.classifier else 1
    resources:
        mem_mb=growing(8000),
        runtime=minutes(60),
    params:
        settings=lambda w: as_json(
            derive.corpus(GRAPH.tasks[w.task], w.task, int(w.seed))
        ),
        texts=lambda w, input: option(
            "texts", input.texts and f"{input.texts}/train.parquet"
        ),
        classifier=lambda w, input: option("classifier", input.classifier),
        cache=lambda w: score_cache(CONFIG.tasks[w.task].scorer),
    shell:
        "quark corpus --settings {params.settings:q} --prompts {input.prompts}/train.parquet"
        " {params.texts} --samples {input.samples} --scores {input.scores} --model {input.model}"
        " {params.classifier} {params.cache} --threads {threads} --out {output.corpus} 2> {log}"


rule fit:
    input:
        corpus=rules.corpus.output.corpus,
        model=model,
    output:
        checkpoint=directory(f"{PART}/checkpoint"),
        summary=f"{PART}/training.json",
    log:
        "logs/{task}/part-{part}/seed-{seed}/fit.log",
    benchmark:
        "results/benchmarks/jobs/{task}/part-{part}/seed-{seed}/fit.tsv"
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(12000),
        runtime=minutes(720, "fit"),
    params:
        settings=lambda w: as_json(
            derive.fit(GRAPH.tasks[w.task], w.task, w.part, int(w.seed))
        ),
    shell:
        "quark fit --settings {params.settings:q} --corpus {input.corpus} --model {input.model}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.checkpoint} 2> {log}"


use rule fit as fit_variant with:
    output:
        checkpoint=directory(f"{VARIED_PART}/checkpoint"),
        summary=f"{VARIED_PART}/training.json",
    log:
        "logs/{task}/{method}/part-{part}/seed-{seed}/fit.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/part-{part}/seed-{seed}/fit.tsv"
    params:
        settings=lambda w: as_json(derive.fit(of(w), w.task, w.part, int(w.seed))),


rule learn:
    input:
        samples=of_this_iteration("samples.parquet"),
        scores=of_this_iteration("scores.parquet"),
        model=model,
        checkpoint=checkpoint_before,
        hidden=of_this_iteration("samples.hidden.safetensors"),
    output:
        checkpoint=directory(f"{ITERATION}/checkpoint"),
        summary=f"{ITERATION}/training.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/train.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/train.tsv"
    wildcard_constraints:
        method=iterated(registry.learners()),
        task=TRAINED,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(12000),
        runtime=minutes(720, "learn"),
    params:
        settings=lambda w: as_json(
            derive.learn(
                of(w), w.task, family(w.method), int(w.seed), int(w.iteration)
            )
        ),
        checkpoint=lambda w, input: option("checkpoint", input.checkpoint),
    shell:
        "quark learn --settings {params.settings:q} --samples {input.samples}"
        " --scores {input.scores} --model {input.model} {params.checkpoint}"
        " --hidden {input.hidden}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.checkpoint} 2> {log}"


if SITE.checkpoints == "last":

    use rule learn as learn_earlier with:
        output:
            checkpoint=temp(directory(f"{ITERATION}/checkpoint")),
            summary=f"{ITERATION}/training.json",
        wildcard_constraints:
            method=iterated(registry.learners()),
            task=EARLIER,
