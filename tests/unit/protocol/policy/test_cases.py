"""Every case of the policy cases, by its id."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from insula.protocol.policy.loading import Places
from insula.protocol.policy.trial import actual, differences, request_of, system_of
from tests.policies import Folder

LOADED: dict[str, Any] = json.loads((Path(__file__).parent / "policy-cases.json").read_text())
CASES = LOADED["cases"]


def _write(root: Path, case: dict[str, Any]) -> None:
    for name in ("etc", "run", "legacy"):
        (root / name).mkdir()
    for name, text in case["files"].items():
        if text is None:
            (root / name).mkdir(parents=True, exist_ok=True)
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("{ROOT}", str(root)), encoding="utf-8", newline="")
    for name in case.get("remove_dirs", ()):
        shutil.rmtree(root / name)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(case: dict[str, Any], tmp_path: Path) -> None:
    _write(tmp_path, case)
    places = Places((f"{tmp_path}/run", f"{tmp_path}/etc"), f"{tmp_path}/legacy")
    system = system_of(LOADED["systems"][case["system"]])
    found = actual(Folder(), places, str(tmp_path), system, request_of(case))
    assert differences(case["expected"], found) == []


def test_a_difference_is_told() -> None:
    assert differences({"outcome": "allow"}, {"outcome": "deny"}) == [
        "outcome: expected 'allow', is 'deny'"
    ]
    assert differences({"outcome": "error", "kind": "crash"}, {"outcome": "allow"}) != []
