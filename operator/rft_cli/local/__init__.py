"""What is on this machine: manifests, inputs, runs' folders and the trainer. Free of typer and rich."""
