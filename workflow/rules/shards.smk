"""Stages cut into shards that run in parallel: `--set-scatter shards=8`.

The number of shards is a setting of the machine. It changes results by no more than rounding (`quark/core/shards.py`).
Set it before a run: with another number, existing results are made again.
"""

if SHARDS > 1:

    use rule sample as sample_shard with:
        output:
            samples=temp(f"{ITERATION}/shard-{{shard}}/samples.parquet"),
            hidden=temp(f"{ITERATION}/shard-{{shard}}/samples.hidden.safetensors"),
            cost=temp(f"{ITERATION}/shard-{{shard}}/samples.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/sample-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/sample-{shard}.tsv"
        wildcard_constraints:
            method=iterated(),
            seed=SEED,

    rule gather_samples:
        input:
            order=prompts,
            parts=shard_files(f"{ITERATION}/samples.parquet"),
            hidden_parts=shard_files(f"{ITERATION}/samples.hidden.safetensors"),
            costs=shard_files(f"{ITERATION}/samples.json"),
        output:
            samples=f"{ITERATION}/samples.parquet",
            hidden=f"{ITERATION}/samples.hidden.safetensors",
            cost=f"{ITERATION}/samples.json",
        log:
            "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/gather_samples.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/gather_samples.tsv"
        wildcard_constraints:
            method=iterated(),
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=minutes(60),
        params:
            order=lambda w, input: f"{input.order}/{getattr(w, 'split', 'train')}.parquet",
            parts=lambda w, input: repeated("parts", input.parts),
            hidden_parts=lambda w, input: repeated(
                "hidden-parts", input.get("hidden_parts", [])
            ),
            hidden=lambda w, output: option("hidden", output.get("hidden", "")),
        shell:
            "quark gather --order {params.order} {params.parts} {params.hidden_parts} {params.hidden}"
            " --out {output[0]} 2> {log}"

    use rule generate as generate_shard with:
        output:
            generations=temp(f"{EVALUATION}/shard-{{shard}}/generations.parquet"),
            cost=temp(f"{EVALUATION}/shard-{{shard}}/generations.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/generate-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/generate-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    use rule gather_samples as gather_generations with:
        input:
            order=prompts,
            parts=shard_files(f"{EVALUATION}/generations.parquet"),
            costs=shard_files(f"{EVALUATION}/generations.json"),
        output:
            generations=f"{EVALUATION}/generations.parquet",
            cost=f"{EVALUATION}/generations.json",
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_generations.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_generations.tsv"
        wildcard_constraints:
            seed=SEED,

    use rule score as score_shard with:
        output:
            scores=temp(f"{ITERATION}/shard-{{shard}}/scores.parquet"),
            cost=temp(f"{ITERATION}/shard-{{shard}}/scores.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/score-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/score-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    use rule gather_samples as gather_scores with:
        input:
            order=f"{ITERATION}/samples.parquet",
            parts=shard_files(f"{ITERATION}/scores.parquet"),
            costs=shard_files(f"{ITERATION}/scores.json"),
        output:
            scores=f"{ITERATION}/scores.parquet",
            cost=f"{ITERATION}/scores.json",
        log:
            "logs/{task}/{method}/seed-{seed}/iteration-{iteration}/gather_scores.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/iteration-{iteration}/gather_scores.tsv"
        wildcard_constraints:
            seed=SEED,
        params:
            order=lambda w, input: input.order,

    use rule score_generations as score_generations_shard with:
        output:
            scores=temp(f"{EVALUATION}/shard-{{shard}}/scores.parquet"),
            cost=temp(f"{EVALUATION}/shard-{{shard}}/scores.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    use rule gather_scores as gather_generation_scores with:
        input:
            order=f"{EVALUATION}/generations.parquet",
            parts=shard_files(f"{EVALUATION}/scores.parquet"),
            costs=shard_files(f"{EVALUATION}/scores.json"),
        output:
            scores=f"{EVALUATION}/scores.parquet",
            cost=f"{EVALUATION}/scores.json",
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_scores.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_scores.tsv"

    use rule score_again as score_again_shard with:
        output:
            scores=temp(f"{EVALUATION}/shard-{{shard}}/second_scores.parquet"),
            cost=temp(f"{EVALUATION}/shard-{{shard}}/second_scores.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score_again-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/score_again-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    use rule gather_scores as gather_second_scores with:
        input:
            order=f"{EVALUATION}/generations.parquet",
            parts=shard_files(f"{EVALUATION}/second_scores.parquet"),
            costs=shard_files(f"{EVALUATION}/second_scores.json"),
        output:
            scores=f"{EVALUATION}/second_scores.parquet",
            cost=f"{EVALUATION}/second_scores.json",
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_second_scores.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_second_scores.tsv"

    use rule judge as judge_shard with:
        output:
            likelihoods=temp(f"{EVALUATION}/shard-{{shard}}/likelihoods.parquet"),
            cost=temp(f"{EVALUATION}/shard-{{shard}}/likelihoods.json"),
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/judge-{shard}.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/judge-{shard}.tsv"
        wildcard_constraints:
            seed=SEED,

    use rule gather_scores as gather_likelihoods with:
        input:
            order=f"{EVALUATION}/generations.parquet",
            parts=shard_files(f"{EVALUATION}/likelihoods.parquet"),
            costs=shard_files(f"{EVALUATION}/likelihoods.json"),
        output:
            likelihoods=f"{EVALUATION}/likelihoods.parquet",
            cost=f"{EVALUATION}/likelihoods.json",
        log:
            "logs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_likelihoods.log",
        benchmark:
            "results/benchmarks/jobs/{task}/{method}/seed-{seed}/evaluation/{split}/{decoding}/gather_likelihoods.tsv"
