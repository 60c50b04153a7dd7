"""Evaluation of a method: generate, score, judge, compute metrics."""


rule generate:
    input:
        prompts=prompts,
        model=model,
        checkpoints=lambda w: GRAPH.checkpoints(w.task, w.method, int(w.seed)),
    output:
        generations=f"{EVALUATION}/generations.parquet",
        cost=f"{EVALUATION}/generations.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/generate.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/generate.tsv"
    wildcard_constraints:
        seed=UNDIVIDED,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(8000),
        runtime=minutes(240, "generate"),
    params:
        settings=lambda w: as_json(
            derive.generate(
                of(w), w.task, family(w.method), int(w.seed), w.split, w.decoding
            )
        ),
        checkpoints=lambda w, input: repeated("checkpoint", input.checkpoints),
        shard=shard,
    shell:
        "quark sample --settings {params.settings:q} --prompts {input.prompts}/{wildcards.split}.parquet"
        " --model {input.model} {params.checkpoints} {params.shard}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.generations} 2> {log}"


use rule score as score_generations with:
    input:
        samples=f"{EVALUATION}/generations.parquet",
        classifier=lambda w: classifier(CONFIG.tasks[w.task].scorer),
    output:
        scores=f"{EVALUATION}/scores.parquet",
        cost=f"{EVALUATION}/scores.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score.tsv"


use rule score_generations as score_again with:
    input:
        samples=f"{EVALUATION}/generations.parquet",
        classifier=lambda w: classifier(CONFIG.tasks[w.task].second_scorer),
    output:
        scores=f"{EVALUATION}/second_scores.parquet",
        cost=f"{EVALUATION}/second_scores.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score_again.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score_again.tsv"
    params:
        settings=lambda w: as_json(
            derive.score(CONFIG, CONFIG.tasks[w.task].second_scorer)
        ),
        classifier=lambda w, input: option("classifier", input.classifier),
        cache=lambda w: score_cache(CONFIG.tasks[w.task].second_scorer),


rule judge:
    input:
        generations=f"{EVALUATION}/generations.parquet",
        model=model,
        judge=judge,
    output:
        likelihoods=f"{EVALUATION}/likelihoods.parquet",
        cost=f"{EVALUATION}/likelihoods.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/judge.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/judge.tsv"
    wildcard_constraints:
        seed=UNDIVIDED,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(8000),
        runtime=minutes(240, "judge"),
    params:
        settings=lambda w: as_json(derive.judge(of(w))),
        shard=shard,
    shell:
        "quark judge --settings {params.settings:q} --samples {input.generations}"
        " --model {input.model} --judge {input.judge} {params.shard}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.likelihoods} 2> {log}"


rule predict:
    input:
        prompts=prompts,
        model=model,
        checkpoints=lambda w: GRAPH.checkpoints(w.task, w.method, int(w.seed)),
    output:
        predictions=f"{PREDICTED}/predictions.parquet",
        cost=f"{PREDICTED}/predictions.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/predict.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/predict.tsv"
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(8000),
        runtime=minutes(240, "predict"),
    params:
        settings=lambda w: as_json(
            derive.predict(of(w), w.task, family(w.method), w.split)
        ),
        checkpoints=lambda w, input: repeated("checkpoint", input.checkpoints),
    shell:
        "quark predict --settings {params.settings:q} --prompts {input.prompts}/{wildcards.split}.parquet"
        " --model {input.model} {params.checkpoints}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.predictions} 2> {log}"


rule mauve:
    input:
        generations=f"{EVALUATION}/generations.parquet",
        predictions=rules.predict.output.predictions,
        model=model,
        features=lambda w: f"resources/models/{of(w).evaluation.mauve.model}",
    output:
        mauve=f"{EVALUATION}/mauve.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/mauve.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/mauve.tsv"
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(8000),
        runtime=minutes(240),
    params:
        settings=lambda w: as_json(derive.mauve(of(w))),
    shell:
        "quark mauve --settings {params.settings:q} --samples {input.generations}"
        " --predictions {input.predictions} --model {input.model} --features {input.features}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.mauve} 2> {log}"


rule evaluate:
    input:
        generations=f"{EVALUATION}/generations.parquet",
        scores=rules.score_generations.output.scores,
        likelihoods=f"{EVALUATION}/likelihoods.parquet",
        predictions=lambda w: GRAPH.predictions(w.task, w.method, int(w.seed), w.split),
        second=lambda w: optional(w, "second_scores.parquet"),
        mauve=lambda w: optional(w, "mauve.json"),
        costs=lambda w: [
            *GRAPH.training_costs(w.task, w.method, int(w.seed)),
            f"{EVALUATION.format(**dict(w))}/generations.json",
            f"{EVALUATION.format(**dict(w))}/scores.json",
        ],
    output:
        metrics=f"{EVALUATION}/metrics.json",
        prompts=f"{EVALUATION}/prompts.parquet",
        settings=f"{EVALUATION}/settings.json",
    log:
        "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/evaluate.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/evaluate.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=minutes(30),
    params:
        settings=lambda w: as_json(
            derive.evaluate(of(w), w.task, w.method, int(w.seed), w.split, w.decoding)
        ),
        costs=lambda w, input: repeated("costs", input.costs),
        predictions=lambda w, input: option("predictions", input.predictions),
        second=lambda w, input: option("second-scores", input.second),
        mauve=lambda w, input: option("mauve", input.mauve),
    shell:
        "quark evaluate --settings {params.settings:q} --generations {input.generations}"
        " --scores {input.scores} --likelihoods {input.likelihoods} {params.costs} {params.predictions} {params.second}"
        " {params.mauve}"
        " --out {output.metrics} 2> {log}"
