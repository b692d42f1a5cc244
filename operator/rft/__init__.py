"""The Python client: build, check, plan and run RFTJobs, here or in a cluster.

    from rft import Client, RFTJob, plan, validate

What is asked of a cluster needs the extra ``cli``. Nothing here needs torch.
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
