"""Running blocks: ledger, executors, runner, manifests, layout of the results. The only Dask."""
