"""insula policy test: unit tests of policies, in the format of the policy cases."""

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from insula.client.policy_reading import read_json
from insula.protocol.errors import ProtocolError, ReportableError
from insula.protocol.policy.loading import Places
from insula.protocol.policy.trial import actual, differences, request_of, system_of
from insula.qrexec.policy_store import PolicyReader
from insula.tools.command import print_json

_FOLDERS = ("etc", "run", "legacy")
_ROOT = "{ROOT}"


def run(arguments: argparse.Namespace) -> int:
    """Run all cases; 1 when one does not end as it should."""
    loaded = read_json(arguments.file)
    try:
        systems, cases = loaded["systems"], loaded["cases"]
        results = [(case, _ended(case, systems)) for case in cases]
    except (KeyError, TypeError, AttributeError, ProtocolError) as error:
        raise ReportableError(f"{arguments.file} holds no policy cases: {error!r}") from None
    failed = 0
    for case, found in results:
        problems = differences(case.get("expected", {}), found)
        failed += bool(problems)
        if problems and not arguments.json:
            print(f"{case['id']}: {case.get('note') or 'not as expected'}")
            for problem in problems:
                print(f"  {problem}")
    if arguments.json:
        print_json([{"id": case["id"], "actual": _told(case, found)} for case, found in results])
    else:
        print(f"{len(results)} cases, {failed} failed")
    return 1 if failed else 0


def _told(case: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found of that which is expected; all of it where nothing is."""
    expected = case.get("expected")
    if not expected:
        return dict(found)
    return {name: found[name] for name in ("outcome", *expected) if name in found}


def _ended(case: Mapping[str, Any], systems: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of a case's call."""
    system, request = system_of(systems[case["system"]]), request_of(case)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _write(root, case)
        places = Places((f"{root}/run", f"{root}/etc"), f"{root}/legacy")
        found: dict[str, Any] = actual(PolicyReader(), places, str(root), system, request)
    return found


def _write(root: Path, case: Mapping[str, Any]) -> None:
    """Lay out the files of a case; a null is a directory."""
    for name in _FOLDERS:
        (root / name).mkdir()
    for name, text in case["files"].items():
        path = _inside(root, name)
        if text is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(_ROOT, str(root)), encoding="utf-8", newline="")
    for name in case.get("remove_dirs", ()):
        shutil.rmtree(_inside(root, name))


def _inside(root: Path, name: str) -> Path:
    """A path of a case, which stays in its folder.

    Raises:
        ReportableError: it leads out of it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ReportableError(f"a case's file lies outside of its folder: {name!r}")
    return root / path
