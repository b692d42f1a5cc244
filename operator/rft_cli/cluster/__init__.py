"""Access to RFTJobs in a cluster. This package does not import typer and rich."""
