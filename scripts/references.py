"""Finds references to files and names that do not exist, in docs, docstrings and comments.

    python scripts/references.py

Prints a line ``file:line: reference`` for each such reference, and exits with 1 if there is any. It checks:

- links between Markdown files, their anchors too;
- paths and file names, which end in ``.py``, ``.md`` or ``.sh`` or start with a folder of this repository;
- targets of make;
- modules of this repository, and names that they define;
- in backticks, names in snake_case, in camelCase or with parentheses. They must occur somewhere in code.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("operator", "trainer-image", ".")
"""Folders that contain the modules of this repository."""
ELSEWHERE = ROOT / "scripts" / "references-elsewhere.txt"
"""File with the names that come from libraries, Kubernetes or users' files, not from this repository."""


class Text(NamedTuple):
    """A docstring, a comment or a Markdown file: its path, the number of its first line, and its text."""

    path: str
    line: int
    text: str


class Repository(NamedTuple):
    """All files, make targets and names that docs, docstrings and comments may refer to."""

    files: frozenset[str]
    tails: frozenset[str]
    """Paths of all files and folders, and every ending of these paths, such as ``rows/parsing.py``."""
    targets: frozenset[str]
    words: frozenset[str]
    """All identifiers in code, and all words in files such as YAML, without comments."""


WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BACKTICKS = re.compile(r"(`+)([^`\n]+?)\1")
CODE = re.compile(r"<code>[^\n]*?</code>(?=[^\n]*\|)|(`+)[^`\n]+?\1(?!\])")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w./:@<>*{$-])((?:[\w.-]+/)*[\w-]+\.(?:py|md|sh))\b(?![\w/(:.-]*[/(])")
TARGET = re.compile(r"\bmake ([a-z][a-z0-9-]*)")
MODULE = re.compile(r"^(?:python3? -m )?((?:rft_[a-z]+|tests|bench)(?:\.\w+)+)")
NAME = re.compile(r"^[A-Za-z_]\w*(?:\(\))?$")


def tracked() -> list[str]:
    """Return the relative paths of the repository's files, with untracked files that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in found if (ROOT / name).is_file()]


def python_parts(name: str, source: str) -> tuple[list[Text], set[str]]:
    """Return the docstrings and comments of a Python file, and the words in its code."""
    docs = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    texts = [Text(name, doc.lineno, doc.value) for doc in docs if isinstance(doc.value, str)]
    prose = {(doc.lineno, doc.col_offset) for doc in docs}
    words: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            texts.append(Text(name, token.start[0], token.string.lstrip("#")))
        elif token.start not in prose:
            words |= set(WORD.findall(token.string))
    return texts, words


def comments(name: str, source: str) -> list[Text]:
    """Return the comments of a script or a manifest."""
    lines = enumerate(source.splitlines(), 1)
    return [Text(name, number, line.lstrip(" #")) for number, line in lines if line.lstrip().startswith("#")]


def read(names: Iterable[str]) -> tuple[list[Text], Repository]:
    """Read files. Return their docs, docstrings and comments, and everything that these may refer to."""
    files = frozenset(names)
    texts: list[Text] = []
    words: set[str] = set(ELSEWHERE.read_text(encoding="utf-8").split())
    for name in sorted(files):
        path = ROOT / name
        words |= set(WORD.findall(name))
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path.suffix == ".md":
            texts.append(Text(name, 1, source))
        elif path.suffix == ".py":
            said, code = python_parts(name, source)
            texts += said
            words |= code
        else:
            remarks = comments(name, source)
            prose = {text.line for text in remarks}
            lines = [line for number, line in enumerate(source.splitlines(), 1) if number not in prose]
            texts += remarks
            words |= set(WORD.findall("\n".join(lines)))
    paths = {*files, *(str(parent) for name in files for parent in Path(name).parents)}
    tails = {"/".join(Path(path).parts[i:]) for path in paths for i in range(len(Path(path).parts))}
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return texts, Repository(files, frozenset(tails), frozenset(targets), frozenset(words))


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"<[^>]*>|[^\w\- ]", "", heading.lower()) for heading in headings)
    return frozenset(heading.replace(" ", "-") for heading in plain)


def broken_links(text: Text) -> Iterator[tuple[int, str]]:
    """Yield position and target of the links in a Markdown file whose file or heading does not exist."""
    for link in LINK.finditer(CODE.sub(lambda code: " " * len(code[0]), text.text)):
        target, _, anchor = link[1].partition("#")
        if "://" in link[1] or target.startswith("mailto:"):
            continue
        file = (ROOT / text.path).parent / target if target else ROOT / text.path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            yield link.start(), link[1]


def defines(module: str) -> bool:
    """Return whether a dotted name is a module of this repository, or a name that such a module defines."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        for folder in PACKAGES:
            base = ROOT.joinpath(folder, *parts[:length])
            file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
            if file.is_file() or (base.is_dir() and length == len(parts)):
                rest = parts[length:]
                return not rest or bool(re.search(rf"\b{rest[0]}\b", file.read_text(encoding="utf-8")))
    return False


def is_there(path: str, text: Text, repository: Repository) -> bool:
    """Return whether a path in a text exists.

    The path may begin in the root folder, or in the folder of the text's file. It may also be the end of the
    path of any file. A path that occurs as a word in code counts as existing too.
    """
    path = path.rstrip("/").removeprefix("./")
    if "*" in path:
        return any(ROOT.glob(path))
    beside = ((ROOT / text.path).parent / path).exists()
    return beside or path in repository.tails or path in repository.words


def broken_names(text: Text, repository: Repository) -> Iterator[tuple[int, str]]:
    """Yield position and name of the paths, make targets, modules and names that do not exist."""
    folders = {name.split("/")[0] for name in repository.files if "/" in name}
    for found in FILE.finditer(text.text):
        if not is_there(found[1], text, repository):
            yield found.start(), found[1]
    for quoted in BACKTICKS.finditer(text.text):
        said = quoted[2].strip()
        for target in TARGET.finditer(said):
            if target[1] not in repository.targets:
                yield quoted.start(), target[0]
        module = MODULE.match(said)
        path = re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", said)
        if module and not FILE.fullmatch(said):
            if not defines(module[1]):
                yield quoted.start(), module[1]
        elif path and said.split("/")[0] in folders and "/" in said and not FILE.fullmatch(said):
            if not is_there(said, text, repository):
                yield quoted.start(), said
        elif NAME.match(said) and is_code(said) and said.removesuffix("()") not in repository.words:
            yield quoted.start(), said


def is_code(said: str) -> bool:
    """Return whether a text in backticks looks like a name in code, and not like an ordinary word."""
    return "_" in said or said.endswith("()") or bool(re.search(r"[a-z][A-Z]", said))


def main() -> int:
    """Print all references to something that does not exist. Return 1 if there are any, else 0."""
    texts, repository = read(tracked())
    wrong = set()
    for text in texts:
        found = broken_names(text, repository)
        links = broken_links(text) if text.path.endswith(".md") else ()
        for offset, said in (*found, *links):
            wrong.add((text.path, text.line + text.text.count("\n", 0, offset), said))
    for path, line, said in sorted(wrong):
        print(f"{path}:{line}: {said} does not exist")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
