"""RFTJobs in a cluster. Free of typer and rich."""
