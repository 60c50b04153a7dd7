"""Quark: iteration i samples with checkpoint i - 1, scores, quantizes the pool of 0..i, and trains.

PPO samples and scores with the same rules.
"""


rule sample:
    input:
        prompts=prompts,
        model=model,
        checkpoint=checkpoint_before,
    output:
        samples=f"{ITERATION}/samples.parquet",
        hidden=f"{ITERATION}/samples.hidden.safetensors",
        cost=f"{ITERATION}/samples.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/sample.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/sample.tsv"
    wildcard_constraints:
        method=iterated(),
        seed=UNDIVIDED,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(8000),
        runtime=minutes(240, "sample"),
    params:
        settings=lambda w: as_json(
            derive.explore(
                of(w), w.task, family(w.method), int(w.seed), int(w.iteration)
            )
        ),
        checkpoint=lambda w, input: option("checkpoint", input.checkpoint),
        shard=shard,
    shell:
        "quark sample --settings {params.settings:q} --prompts {input.prompts}/train.parquet"
        " --model {input.model} {params.checkpoint} {params.shard}"
        " --threads {threads} --memory-mb {resources.mem_mb} --hidden {output.hidden}"
        " --out {output.samples} 2> {log}"


rule score:
    input:
        samples=f"{ITERATION}/samples.parquet",
        classifier=lambda w: classifier(CONFIG.tasks[w.task].scorer),
    output:
        scores=f"{ITERATION}/scores.parquet",
        cost=f"{ITERATION}/scores.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/score.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/score.tsv"
    wildcard_constraints:
        seed=UNDIVIDED,
    conda:
        CONDA
    threads: lambda w, input: CORES if input.classifier else 1
    resources:
        mem_mb=lambda w, input, attempt: attempt * (8000 if input.classifier else 2000),
        runtime=minutes(60),
    params:
        settings=lambda w: as_json(derive.score(CONFIG, CONFIG.tasks[w.task].scorer)),
        classifier=lambda w, input: option("classifier", input.classifier),
        cache=lambda w: score_cache(CONFIG.tasks[w.task].scorer),
        shard=shard,
    shell:
        "quark score --settings {params.settings:q} --samples {input.samples} {params.classifier}"
        " {params.cache} {params.shard} --threads {threads} --out {output.scores} 2> {log}"


rule quantize:
    input:
        samples=so_far("samples.parquet"),
        scores=so_far("scores.parquet"),
    output:
        pool=f"{ITERATION}/pool.parquet",
        summary=f"{ITERATION}/pool.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/quantize.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/quantize.tsv"
    wildcard_constraints:
        method=iterated(derive.QUARKS),
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=minutes(30),
    params:
        settings=lambda w: as_json(
            derive.quantize(
                of(w), w.task, family(w.method), int(w.seed), int(w.iteration)
            )
        ),
        samples=lambda w, input: repeated("samples", input.samples),
        scores=lambda w, input: repeated("scores", input.scores),
    shell:
        "quark quantize --settings {params.settings:q} {params.samples} {params.scores}"
        " --out {output.pool} 2> {log}"


rule train:
    input:
        pool=rules.quantize.output.pool,
        model=model,
        checkpoint=checkpoint_before,
        hidden=lambda w: GRAPH.reference_caches(
            w.task, w.method, int(w.seed), int(w.iteration)
        ),
    output:
        checkpoint=directory(f"{ITERATION}/checkpoint"),
        hidden=f"{ITERATION}/training.hidden.safetensors",
        summary=f"{ITERATION}/training.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/train.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/train.tsv"
    wildcard_constraints:
        method=iterated(derive.QUARKS),
        task=TRAINED,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(12000),
        runtime=minutes(720, "train"),
        processes=1,
        nodes=1,
        layers="whole",
    params:
        settings=lambda w: as_json(
            derive.train(
                of(w), w.task, family(w.method), int(w.seed), int(w.iteration)
            )
        ),
        checkpoint=lambda w, input: option("checkpoint", input.checkpoint),
        hidden=lambda w, input: repeated("hidden", input.hidden),
    shell:
        "quark train --settings {params.settings:q} --pool {input.pool}"
        " --model {input.model} {params.checkpoint} {params.hidden} --processes {resources.processes}"
        " --nodes {resources.nodes} --layers {resources.layers} --threads {threads} --memory-mb {resources.mem_mb} --out {output.checkpoint} 2> {log}"


if SITE.checkpoints == "last":

    use rule train as train_earlier with:
        output:
            checkpoint=temp(directory(f"{ITERATION}/checkpoint")),
            hidden=f"{ITERATION}/training.hidden.safetensors",
            summary=f"{ITERATION}/training.json",
        wildcard_constraints:
            method=iterated(derive.QUARKS),
            task=EARLIER,
