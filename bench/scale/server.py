"""What the API server of a benchmark needs before there can be RFTJobs."""

from bench.scale.api import ACCOUNT, CRDS, NAMESPACE, RFTJOBS, Api, until
from rft_codegen.crd import crd


async def prepare(api: Api) -> None:
    """Make the namespace and the CRD."""
    await api.call("POST", CRDS, crd())
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})

    async def ready() -> bool:
        return await api.find(RFTJOBS) is not None and await api.find(ACCOUNT) is not None

    await until("the namespace is ready", ready)
