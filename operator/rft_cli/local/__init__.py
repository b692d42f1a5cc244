"""Reads and writes manifests, inputs and runs' folders on this machine. Does not import typer and rich."""
