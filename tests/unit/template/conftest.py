"""Tests look into images with programs that ordinary users do not search."""

import os

import pytest


@pytest.fixture(autouse=True)
def programs_of_administrators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
