"""Two releases in different namespaces, which serve different namespaces, share no object but the CRD."""

from tests.unit.chart_support import rendered


def objects(release: str, served: str, *values: str) -> set[tuple[str, str, str]]:
    """Return kind, namespace and name of each object of a release in the namespace ``release``."""
    documents = rendered(f"watch.namespaces={{{served}}}", *values, namespace=release)
    return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]) for d in documents}


def test_two_releases_of_the_same_name_share_only_the_crd() -> None:
    crd = ("CustomResourceDefinition", "", "rftjobs.rft.dev")
    red = objects("red-system", "red")
    assert red & objects("blue-system", "blue") == {crd}
    assert red & objects("blue-system", "blue", "crds.install=false") == set()
