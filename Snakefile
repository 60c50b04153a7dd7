# `snakemake TARGET` in this folder runs workflow/Snakefile, where catalogs of workflows expect it.
include: "workflow/Snakefile"
