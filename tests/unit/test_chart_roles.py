"""The chart adds rights on RFTJobs to Kubernetes' roles view, edit and admin. None may write a status."""

from tests.unit.chart_support import Json, rendered

READ = {("rftjobs", "get"), ("rftjobs", "list"), ("rftjobs", "watch"), ("rftjobs/status", "get")}
WRITE = {("rftjobs", verb) for verb in ("create", "update", "patch", "delete", "deletecollection")}


def granted(role: str, documents: list[Json]) -> set[tuple[str, str]]:
    """Return the rights that the chart adds to the ClusterRole ``role``: pairs of resource and verb."""
    label = f"rbac.authorization.k8s.io/aggregate-to-{role}"
    return {
        (resource, verb)
        for document in documents
        if document["kind"] == "ClusterRole" and document["metadata"]["labels"].get(label) == "true"
        for rule in document["rules"]
        if rule["apiGroups"] == ["rft.dev"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_built_in_roles_get_rftjobs_and_not_their_status() -> None:
    documents = rendered()
    assert granted("view", documents) == READ
    assert granted("edit", documents) == granted("admin", documents) == READ | WRITE


def test_the_built_in_roles_can_be_left_alone() -> None:
    documents = rendered("rbac.aggregate=false")
    assert not any(granted(role, documents) for role in ("view", "edit", "admin"))
