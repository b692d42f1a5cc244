"""Defines the Kubernetes resource RFTJob: every field, range, default and rule, in one place only.

The CRD, the admission webhook, the CLI, the operator and the trainer all use these definitions. The package
imports only pydantic and PyYAML: no torch, no kubernetes.
"""

GROUP = "rft.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RFTJob"
PLURAL = "rftjobs"
SINGULAR = "rftjob"
SHORT_NAME = "rft"
