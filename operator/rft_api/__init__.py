"""The API of rft-operator: the only definition of every field, range, default and rule.

This package imports pydantic and PyYAML only: no torch, no kubernetes. The CRD, the webhook,
the CLI, the operator and the trainer all take their ranges from here.
"""

GROUP = "rft.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RFTJob"
PLURAL = "rftjobs"
SINGULAR = "rftjob"
SHORT_NAME = "rft"
