"""A fake package ``rft_trainer``, which tests of ``rft run`` start in place of the trainer."""

from pathlib import Path

import pytest


def fake_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = "") -> None:
    """Let the child process of ``rft run`` import a package ``rft_trainer`` that runs ``source``."""
    package = folder / "path" / "rft_trainer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
