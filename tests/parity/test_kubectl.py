"""kubectl and the loader of ``rft`` read the same values from the same text.

The tests use ``kubectl annotate --local``. It reads a file as all other kubectl commands do, but needs no
server.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rft_api.loader import UnreadableManifest, load_file
from tests.cluster.layout import default_layout

HEAD = "apiVersion: rft.dev/v1alpha1\nkind: RFTJob\nmetadata: {name: a}\n"
ITEM = HEAD.rstrip().replace("\n", "\n  ")

# Values of one field. kubectl reads all accepted values in one call, and each refused value in its own call.
_PLAIN = """
1e-4 1E-4 1e3 1e+3 1.e-3 .5e3 5. .5 -.5 +.5 +5 0.0 -0.0 3.0 0.1 1_000 1_000.5 1__0 ._5 _1 1e5_0 1e
0o17 017 -017 +017 0o_17 0777 019 08 09.5 00 0x1f 0X1F +0x1F 0xg 0x 0b101 -0b11 0b 0b2 0o8
1:30 190:20:30 1.2.3 7B 2001-01-01 2001-01-01T10:00:00Z 2001-1-1 = << inf nan 1e400 -1e400 1e-400
9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551616
123456789012345678901234567890 1152921504606846976.0 1e16 1e18 1e19 1e21 1e22 5e-324 1.7976931348623157e308
y Y yes YES yEs n N no on No oN off true TRUE tRUE false ~ null Null NULL nULL
'1e-4' "8" 'yes' "a\\u00e9\\x41\\n" 'it\'\'s' a#c ٣ 0.30000000000000004 {} [] {a} [1,2,] [a]
"""
VALUES = _PLAIN.split()
TAGGED = ["!!str 8", "!!int '8'", "!!float '8'", "!!bool 'yes'", "!!null ''", "!!binary aGVsbG8=", "!foo 3",
          "!!timestamp 2001-01-01", "!!set {a, b}", "", "a #c", "1 000", "{1: 2, 1.5: 3, true: 4}",
          "{0x10: 1}", "{1e3: 1}", "{n: 1}", "{'': 1}",
          "|\n    text\n", ">-\n    a\n    b\n\n    c\n"]  # fmt: skip
REFUSED = [
    ".inf",
    "-.inf",
    ".nan",
    "!!int 8.5",
    "{[a]: 1}",
    "{~: 1}",
    "*none",
    "@a",
    "a: b",
    "[a: b: c]",
    "- x",
]

DOCUMENTS = {
    "tab after a colon": f"{HEAD}spec:\n  a:\t1\n  b:\t{{c: 1}}\n",
    "tab at the end": f"{HEAD}spec:\n  a: 1\t\n  b: 2\t# c\n\t\n",
    "tab within a text": f"{HEAD}spec: {{a: 'x\ty'}}\n",
    "tab as indentation": f"{HEAD}spec:\n\ta: 1\n",
    "CRLF": f"{HEAD}spec:\n  a: 1\n  b: |\n    x\n    y\n---\n{HEAD}".replace("\n", "\r\n"),
    "byte order mark": f"\ufeff{HEAD}",
    "byte order mark within": f"{HEAD}---\n\ufeff{HEAD}",
    "empty documents": f"---\n{HEAD}---\n---\n# only a comment\n---\nnull\n---\n{HEAD}spec: {{a: 2}}\n",
    "end marks": f"{HEAD}...\n---\n{HEAD}...\n",
    "comment beside a separator": f"{HEAD}--- # second\n{HEAD}",
    "document beside a separator": f"{HEAD}--- {{kind: B}}\n",
    "separator within a block": f"{HEAD}spec:\n  a: |\n    x\n    ---\n    y\n",
    "list": f"apiVersion: v1\nkind: List\nitems:\n- {ITEM}\n- {ITEM}\n",
    "list of a kind": f"apiVersion: rft.dev/v1alpha1\nkind: RFTJobList\nitems:\n- {ITEM}\n",
    "list between others": f"{HEAD}---\napiVersion: v1\nkind: List\nitems:\n- {ITEM}\n---\n{HEAD}",
    "empty list": f"apiVersion: v1\nkind: List\nitems: []\n---\n{HEAD}",
    "list of null": f"apiVersion: v1\nkind: List\nitems:\n---\n{HEAD}",
    "list of a number": "apiVersion: v1\nkind: List\nitems: [3]\n",
    "merge": f"{HEAD}spec: {{x: &x {{a: 1}}, w: {{<<: *x, a: 2}}}}\n",
    "merge below": f"{HEAD}spec: {{x: &x {{a: 1}}, w: {{a: 2, <<: *x}}}}\n",
    "merges": f"{HEAD}spec: {{x: &x {{a: 1, b: 1}}, z: &z {{a: 3, c: 3}}, w: {{<<: [*x, *z], d: 2}}}}\n",
    "merge of a number": f"{HEAD}spec: {{x: &x 1, w: {{<<: *x}}}}\n",
    "quoted merge": f"{HEAD}spec: {{w: {{'<<': 1}}}}\n",
    "anchor": f"{HEAD}spec: {{x: &x [1, {{a: 2}}], w: *x}}\n",
    "anchor of another document": f"{HEAD}spec: {{x: &x 1}}\n---\n{HEAD}spec: {{x: *x}}\n",
    "anchor twice": f"{HEAD}spec: {{x: &x 1, w: *x, z: &x 2, v: *x}}\n",
    "anchor within itself": f"{HEAD}spec: &x {{a: *x}}\n",
    "JSON": '{"apiVersion":"v1","kind":"X","metadata":{"name":"a"},"spec":{"n":1e-4,"b":8.0,"1":null}}',
    "emoji": f'{HEAD}spec: {{a: 😀, b: "\\U0001F600", c: "\u2028"}}\n',
    "control character": f"{HEAD}spec: {{a: x\x07y}}\n",
    "text": "just text\n",
    "sequence": "[1, 2]\n",
    "unfinished": f"{HEAD}spec: {{a: 1\n",
}  # fmt: skip

TWICE = ["{a: 1, a: 2}", "{1: 1, '1': 2}", "{on: 1, true: 2}", "{b: {a: 1, a: 1}}"]


@pytest.fixture(scope="module")
def kubectl() -> Path:
    found = shutil.which("kubectl") or default_layout().tools / "kubectl"
    if not Path(found).exists():
        pytest.skip("kubectl is not installed; `make cluster-up` downloads it")
    return Path(found)


def by_kubectl(kubectl: Path, path: Path) -> list[Any] | None:
    """Return the objects that kubectl reads from a file, or None if kubectl refuses the file."""
    command = [str(kubectl), "annotate", "--local", "--output=json", f"--filename={path}", "read=yes"]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"KUBECONFIG": "/dev/null"}
    )
    if ran.returncode != 0:
        return None
    objects, rest = [], ran.stdout.strip()
    while rest:
        found, end = json.JSONDecoder().raw_decode(rest)
        del found["metadata"]["annotations"]
        objects.append(found)
        rest = rest[end:].strip()
    return objects


def by_us(path: Path) -> list[Any] | None:
    try:
        return [document.body for document in load_file(path)]
    except UnreadableManifest:
        return None


def same(theirs: Any, ours: Any) -> bool:
    """Return whether values and types are equal. kubectl may write 0.0 and large floats as whole numbers."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return theirs.keys() == ours.keys() and all(same(theirs[key], ours[key]) for key in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(same, theirs, ours))
    if isinstance(theirs, int) and not -(2**63) <= theirs < 2**63:
        theirs = float(theirs)
    return (type(theirs) is type(ours) and theirs == ours) or (theirs == 0.0 == ours and ours is not False)


def test_kubectl_and_loader_read_the_same_values(kubectl: Path, tmp_path: Path) -> None:
    path, texts = tmp_path / "job.yaml", [*VALUES, *TAGGED]
    body = "".join(f"  v{number}: {text}\n" for number, text in enumerate(texts))
    path.write_text(f"{HEAD}spec:\n{body}")
    theirs, ours = by_kubectl(kubectl, path), by_us(path)
    assert theirs is not None
    assert ours is not None
    for number, text in enumerate(texts):
        field = f"v{number}"
        assert same(theirs[0]["spec"][field], ours[0]["spec"][field]), (
            text, theirs[0]["spec"][field], ours[0]["spec"][field],
        )  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_the_loader_refuses_values_that_kubectl_refuses(kubectl: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"{HEAD}spec:\n  v: {text}\n")
    assert by_kubectl(kubectl, path) is None
    assert by_us(path) is None


@pytest.mark.parametrize("what", DOCUMENTS)
def test_kubectl_and_loader_read_the_same_documents(kubectl: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(DOCUMENTS[what].encode())
    theirs, ours = by_kubectl(kubectl, path), by_us(path)
    assert (theirs is None) == (ours is None), (theirs, ours)
    assert same(theirs, ours), (theirs, ours)


def test_kubectl_and_loader_read_utf_16_alike(kubectl: Path, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(f"{HEAD}spec: {{a: ü}}\n".encode("utf-16"))
    theirs, ours = by_kubectl(kubectl, path), by_us(path)
    assert theirs is not None
    assert theirs == ours


@pytest.mark.parametrize("text", TWICE)
def test_the_loader_refuses_duplicate_keys_although_kubectl_accepts_them(
    kubectl: Path, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"{HEAD}spec: {text}\n")
    assert by_kubectl(kubectl, path) is not None
    assert by_us(path) is None
