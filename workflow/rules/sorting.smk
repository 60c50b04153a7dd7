"""Prompts sorted by the scores of a model's continuations: fetch candidates, sample, score, sort."""


use rule fetch_prompts as fetch_candidates with:
    output:
        prompts=directory("resources/candidates/{name}/prompts"),
    log:
        "logs/fetch_candidates/{name}.log",
    benchmark:
        "results/benchmarks/jobs/fetch_candidates/{name}.tsv"
    wildcard_constraints:
        name="|".join(SORTED) or NOTHING,


rule sample_candidates:
    input:
        prompts=rules.fetch_candidates.output.prompts,
        model=lambda w: f"resources/models/{CONFIG.prompts[w.name].sorted.model}",
    output:
        samples="resources/candidates/{name}/samples.parquet",
        cost="resources/candidates/{name}/samples.json",
    log:
        "logs/sample_candidates/{name}.log",
    benchmark:
        "results/benchmarks/jobs/sample_candidates/{name}.tsv"
    wildcard_constraints:
        name="|".join(SORTED) or NOTHING,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(8000),
        runtime=minutes(240),
    params:
        settings=lambda w: as_json(
            derive.candidates(CONFIG, w.name, CONFIG.prompts[w.name].sorted)
        ),
    shell:
        "quark sample --settings {params.settings:q} --prompts {input.prompts}/candidates.parquet"
        " --model {input.model} --threads {threads} --memory-mb {resources.mem_mb}"
        " --out {output.samples} 2> {log}"


use rule score as score_candidates with:
    input:
        samples=rules.sample_candidates.output.samples,
        classifier=lambda w: classifier(CONFIG.prompts[w.name].sorted.scorer),
    output:
        scores="resources/candidates/{name}/scores.parquet",
        cost="resources/candidates/{name}/scores.json",
    log:
        "logs/score_candidates/{name}.log",
    benchmark:
        "results/benchmarks/jobs/score_candidates/{name}.tsv"
    params:
        settings=lambda w: as_json(
            derive.score(CONFIG, CONFIG.prompts[w.name].sorted.scorer)
        ),
        classifier=lambda w, input: option("classifier", input.classifier),
        cache=lambda w: score_cache(CONFIG.prompts[w.name].sorted.scorer),


rule sort_prompts:
    input:
        prompts=rules.fetch_candidates.output.prompts,
        samples=rules.sample_candidates.output.samples,
        scores=rules.score_candidates.output.scores,
    output:
        prompts=directory("resources/prompts/{name}"),
    log:
        "logs/sort_prompts/{name}.log",
    benchmark:
        "results/benchmarks/jobs/sort_prompts/{name}.tsv"
    wildcard_constraints:
        name="|".join(SORTED) or NOTHING,
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=minutes(10),
    params:
        settings=lambda w: as_json(derive.sort(CONFIG.prompts[w.name].sorted, w.name)),
    shell:
        "quark sort-prompts --settings {params.settings:q} --prompts {input.prompts}"
        " --samples {input.samples} --scores {input.scores} --out {output.prompts} 2> {log}"
