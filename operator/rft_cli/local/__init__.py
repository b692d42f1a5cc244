"""Reads and writes what is on this machine: manifests, inputs, runs' folders. Free of typer and rich."""
