"""The old name of the package ``rft_graders``. Kubernetes Jobs of earlier releases still use this name."""
