"""The Python client: builds, checks, plans and runs RFTJobs, on this machine or in a cluster.

    from rft import Client, RFTJob, plan, validate

``Client``, which sends requests to a cluster, needs the pip extra ``cli``. No module here imports torch.
"""

from rft.client import Client, Job
from rft.local import load, plan, run_locally, validate
from rft_api.job import Metadata, RFTJob, RFTJobSpec
from rft_api.status import Plan, RFTJobStatus
from rft_cli.errors import UserError as RFTError

__all__ = [
    "Client",
    "Job",
    "Metadata",
    "Plan",
    "RFTError",
    "RFTJob",
    "RFTJobSpec",
    "RFTJobStatus",
    "load",
    "plan",
    "run_locally",
    "validate",
]
