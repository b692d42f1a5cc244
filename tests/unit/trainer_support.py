"""A fake package ``rft_trainer``, which tests of ``rft run`` start in place of the trainer."""

from pathlib import Path

import pytest


def fake_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = "") -> None:
    """Write a package ``rft_trainer`` for the child process of ``rft run``. ``source`` is its program."""
    package = folder / "path" / "rft_trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
