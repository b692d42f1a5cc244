"""The wheel contains every package except ``rft_codegen``. Each package is marked as typed."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    str(path.parent.relative_to(ROOT))
    for folder in ("operator", "trainer-image")
    for path in (ROOT / folder).glob("*/__init__.py")
)


def test_the_wheel_has_every_package_that_programs_need() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = [name for name in PACKAGES if name != "operator/rft_codegen"]
    assert sorted(settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == shipped


def test_every_package_says_that_it_is_typed() -> None:
    assert [name for name in PACKAGES if not (ROOT / name / "py.typed").is_file()] == []
