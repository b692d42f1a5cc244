"""Prepares the benchmark's API server for RFTJobs."""

from bench.scale.api import ACCOUNT, CRDS, NAMESPACE, RFTJOBS, Api, until
from rft_codegen.crd import crd


async def prepare(api: Api) -> None:
    """Create the namespace and the CRD."""
    await api.call("POST", CRDS, crd())
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})

    async def ready() -> bool:
        return await api.find(RFTJOBS) is not None and await api.find(ACCOUNT) is not None

    await until("the namespace is ready", ready)
