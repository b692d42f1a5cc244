"""Access to RFTJobs in a cluster. This package imports neither typer nor rich."""
