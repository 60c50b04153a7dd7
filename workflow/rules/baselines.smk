"""Baselines: the corpus, what is learnt from it, and PPO's iterations."""


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
        runtime=growing(60),
    params:
        settings=lambda w: as_json(
            settings.corpus(CONFIGS[w.task], w.task, int(w.seed))
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
        runtime=growing(720),
    params:
        settings=lambda w: as_json(
            settings.fit(CONFIGS[w.task], w.task, w.part, int(w.seed))
        ),
    shell:
        "quark fit --settings {params.settings:q} --corpus {input.corpus} --model {input.model}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.checkpoint} 2> {log}"


rule train_ppo:
    input:
        samples=f"{PPO}/samples.parquet",
        scores=f"{PPO}/scores.parquet",
        model=model,
        checkpoint=checkpoint_before("ppo"),
        memo=f"{PPO}/samples.memo.safetensors",
    output:
        checkpoint=directory(f"{PPO}/checkpoint"),
        summary=f"{PPO}/training.json",
    log:
        "logs/{task}/ppo/seed-{seed}/iteration-{iteration}/train.log",
    benchmark:
        "results/benchmarks/jobs/{task}/ppo/seed-{seed}/iteration-{iteration}/train.tsv"
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(12000),
        runtime=growing(720),
    params:
        settings=lambda w: as_json(
            settings.ppo(CONFIGS[w.task], w.task, int(w.seed), int(w.iteration))
        ),
        checkpoint=lambda w, input: option("checkpoint", input.checkpoint),
    shell:
        "quark train-ppo --settings {params.settings:q} --samples {input.samples}"
        " --scores {input.scores} --model {input.model} {params.checkpoint}"
        " --memo {input.memo}"
        " --threads {threads} --memory-mb {resources.mem_mb} --out {output.checkpoint} 2> {log}"
