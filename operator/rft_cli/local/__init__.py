"""Everything that ``rft`` does on the user's machine: reads manifests and datasets, starts the trainer, and
reads the folders of runs. This package imports neither typer nor rich.
"""
