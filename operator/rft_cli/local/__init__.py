"""Runs on this machine: manifests, inputs and the trainer as a child process. Free of typer and rich."""
