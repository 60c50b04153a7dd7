"""Figures, each with its data."""


rule tradeoff:
    input:
        source="results/{task}/table.csv",
    output:
        svg=report(
            "results/figures/{task}/tradeoff.svg",
            caption="../report/tradeoff.rst",
            category="Figures",
            labels={"task": "{task}", "figure": "tradeoff"},
        ),
        png="results/figures/{task}/tradeoff.png",
        data="results/figures/{task}/tradeoff.parquet",
    log:
        "logs/{task}/figures/tradeoff.log",
    benchmark:
        "results/benchmarks/jobs/{task}/figures/tradeoff.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        kind="tradeoff",
        sources=lambda w, input: repeated("source", [input.source]),
    shell:
        "quark figure --kind {params.kind} {params.sources} --out {output.svg} 2> {log}"


use rule tradeoff as published with:
    output:
        svg=report(
            "results/figures/{task}/published.svg",
            caption="../report/published.rst",
            category="Figures",
            labels={"task": "{task}", "figure": "published"},
        ),
        png="results/figures/{task}/published.png",
        data="results/figures/{task}/published.parquet",
    log:
        "logs/{task}/figures/published.log",
    benchmark:
        "results/benchmarks/jobs/{task}/figures/published.tsv"
    params:
        kind="published",
        sources=lambda w, input: repeated("source", [input.source]),


use rule tradeoff as sweep with:
    input:
        source="results/ablations/{sweep}.csv",
    output:
        svg=report(
            "results/figures/ablations/{sweep}.svg",
            caption="../report/sweep.rst",
            category="Ablations",
            labels={"ablation": "{sweep}"},
        ),
        png="results/figures/ablations/{sweep}.png",
        data="results/figures/ablations/{sweep}.parquet",
    log:
        "logs/figures/ablations/{sweep}.log",
    benchmark:
        "results/benchmarks/jobs/figures/ablations/{sweep}.tsv"
    params:
        kind="sweep",
        sources=lambda w, input: repeated("source", [input.source]),


use rule tradeoff as operating with:
    input:
        source="results/tuning/{task}/table.csv",
    output:
        svg=report(
            "results/figures/tuning/{task}.svg",
            caption="../report/operating.rst",
            category="Tuning",
            labels={"task": "{task}"},
        ),
        png="results/figures/tuning/{task}.png",
        data="results/figures/tuning/{task}.parquet",
    log:
        "logs/figures/tuning/{task}.log",
    benchmark:
        "results/benchmarks/jobs/figures/tuning/{task}.tsv"
    params:
        kind="operating",
        sources=lambda w, input: repeated("source", [input.source]),


use rule tradeoff as rewards with:
    input:
        source=lambda w: GRAPH.of_iterations(
            w.task, w.method, int(w.seed), ["pool.parquet"]
        )[-1],
    output:
        svg=report(
            "results/figures/{task}/{method}/seed-{seed}/rewards.svg",
            caption="../report/rewards.rst",
            category="Figures",
            labels={"task": "{task}", "figure": "rewards, {method}, seed {seed}"},
        ),
        png="results/figures/{task}/{method}/seed-{seed}/rewards.png",
        data="results/figures/{task}/{method}/seed-{seed}/rewards.parquet",
    log:
        "logs/{task}/{method}/seed-{seed}/rewards.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/rewards.tsv"
    wildcard_constraints:
        method="|".join(derive.QUARKS),
    params:
        kind="rewards",
        sources=lambda w, input: repeated("source", [input.source]),


# The curves alone need the perplexity of an iteration's samples and their second scores.
use rule judge as judge_samples with:
    input:
        generations=f"{ITERATION}/samples.parquet",
        model=model,
        judge=judge,
    output:
        likelihoods=f"{ITERATION}/likelihoods.parquet",
        cost=f"{ITERATION}/likelihoods.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/judge.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/judge.tsv"
    wildcard_constraints:
        seed=SEED,


use rule score_again as score_samples_again with:
    input:
        samples=f"{ITERATION}/samples.parquet",
        classifier=lambda w: classifier(CONFIG.tasks[w.task].second_scorer),
    output:
        scores=f"{ITERATION}/second_scores.parquet",
        cost=f"{ITERATION}/second_scores.json",
    log:
        "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/score_again.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/score_again.tsv"
    wildcard_constraints:
        seed=SEED,


use rule tradeoff as curves with:
    input:
        files=lambda w: [
            file
            for seed in CONFIG.seeds
            for file in GRAPH.drawn(w.task, w.method, seed)
        ],
    output:
        svg=report(
            "results/figures/{task}/{method}/curves.svg",
            caption="../report/curves.rst",
            category="Figures",
            labels={"task": "{task}", "figure": "curves, {method}"},
        ),
        png="results/figures/{task}/{method}/curves.png",
        data="results/figures/{task}/{method}/curves.parquet",
    log:
        "logs/{task}/{method}/curves.log",
    benchmark:
        "results/benchmarks/jobs/{task}/{method}/curves.tsv"
    wildcard_constraints:
        method="|".join(derive.QUARKS),
    params:
        kind="curves",
        sources=lambda w, input: repeated(
            "source",
            [
                *dict.fromkeys(Path(file).parent for file in input.files),
                *(file for file in input.files if "second_scores" in file),
            ],
        ),
