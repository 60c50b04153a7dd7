"""Pretrained models and prompts, fetched once; agreement of scorers with published scores."""


rule fetch_model:
    input:
        local=lambda w: local_files(CONFIG.models[w.name]),
    output:
        model=directory("resources/models/{name}"),
    log:
        "logs/fetch_model/{name}.log",
    benchmark:
        "results/benchmarks/jobs/fetch_model/{name}.tsv"
    wildcard_constraints:
        name="|".join(name for name in CONFIG.models if name not in GRAPH.finetuned)
        or NOTHING,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        settings=lambda w: as_json(CONFIG.models[w.name]),
    shell:
        "quark fetch-model --name {wildcards.name} --settings {params.settings:q}"
        " --threads {threads} --out {output.model} 2> {log}"


rule fetch_classifier:
    input:
        local=lambda w: local_files(CONFIG.classifiers[w.name]),
    output:
        classifier=directory("resources/classifiers/{name}"),
    log:
        "logs/fetch_classifier/{name}.log",
    benchmark:
        "results/benchmarks/jobs/fetch_classifier/{name}.tsv"
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=minutes(60),
    params:
        settings=lambda w: as_json(derive.source(CONFIG.classifiers[w.name])),
    shell:
        "quark fetch-classifier --name {wildcards.name} --settings {params.settings:q}"
        " --out {output.classifier} 2> {log}"


rule finetune_model:
    input:
        model=lambda w: f"resources/models/{CONFIG.models[w.name].finetuned.model}",
        texts=lambda w: f"resources/prompts/{CONFIG.models[w.name].finetuned.texts}",
    output:
        model=directory("resources/models/{name}"),
        summary="results/models/{name}/training.json",
    log:
        "logs/finetune_model/{name}.log",
    benchmark:
        "results/benchmarks/jobs/finetune_model/{name}.tsv"
    wildcard_constraints:
        name="|".join(GRAPH.finetuned) or NOTHING,
    conda:
        CONDA
    threads: CORES
    resources:
        mem_mb=growing(12000),
        runtime=minutes(720, "finetune_model"),
    params:
        settings=lambda w: as_json(derive.finetune(CONFIG, w.name)),
    shell:
        "quark finetune-model --settings {params.settings:q} --model {input.model}"
        " --texts {input.texts}/train.parquet --threads {threads}"
        " --memory-mb {resources.mem_mb} --summary {output.summary} --out {output.model} 2> {log}"


rule fetch_prompts:
    input:
        local=lambda w: local_files(*CONFIG.prompts[w.name].sources),
    output:
        prompts=directory("resources/prompts/{name}"),
    log:
        "logs/fetch_prompts/{name}.log",
    benchmark:
        "results/benchmarks/jobs/fetch_prompts/{name}.tsv"
    wildcard_constraints:
        name="|".join(name for name in CONFIG.prompts if name not in SORTED) or NOTHING,
    conda:
        CONDA
    threads: 1
    resources:
        mem_mb=lambda w, attempt: attempt * prompts_mb(w.name),
        runtime=minutes(60),
    params:
        settings=lambda w: as_json(derive.unsorted(CONFIG.prompts[w.name])),
    shell:
        "quark fetch-prompts --name {wildcards.name} --settings {params.settings:q}"
        " --out {output.prompts} 2> {log}"


rule calibrate:
    input:
        prompts="resources/prompts/{name}",
        classifier=lambda w: classifier(w.scorer),
    output:
        csv="results/calibration/{name}/{scorer}.csv",
    log:
        "logs/calibration/{name}/{scorer}.log",
    benchmark:
        "results/benchmarks/jobs/calibration/{name}/{scorer}.tsv"
    conda:
        CONDA
    threads: lambda w, input: CORES if input.classifier else 1
    resources:
        mem_mb=lambda w, input, attempt: attempt * (8000 if input.classifier else 2000),
        runtime=minutes(60),
    params:
        settings=lambda w: as_json(derive.calibrate(CONFIG, w.scorer)),
        classifier=lambda w, input: option("classifier", input.classifier),
        cache=lambda w: score_cache(w.scorer),
    shell:
        "quark calibrate --settings {params.settings:q} --prompts {input.prompts}"
        " {params.classifier} {params.cache} --threads {threads} --out {output.csv} 2> {log}"
