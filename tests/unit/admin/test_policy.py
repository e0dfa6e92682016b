"""The files of the policy, read and changed over the Admin API (qrexec-policy.md section 12)."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from insula.daemon.policy import defaults
from tests.serving import Instance

RULE = b"test.A * work vault allow\n"
SYNTAX, TOKEN = "PolicyAdminSyntaxException", "PolicyAdminTokenException"
FORM, NAME = "PolicyAdminProtocolException", "PolicyAdminInvalidFileNameException"
MISSING = "PolicyAdminFileNotFoundException"


def _token(content: bytes) -> bytes:
    return f"sha256:{hashlib.sha256(content).hexdigest()}".encode()


async def test_a_new_instance_has_the_default_policy(instance: Instance) -> None:
    names = (await instance.ok("policy.List")).split()
    assert names == sorted(names)
    assert {"30-user", "35-compat", "90-default", "90-admin-default"} <= set(names)
    assert "admin-local-rwx" in (await instance.ok("policy.include.List")).split()


async def test_a_file_is_made_changed_and_removed_by_its_token(instance: Instance) -> None:
    await instance.ok("policy.Replace", argument="40-mine", payload=b"new\n" + RULE)
    answer = await instance.ok("policy.Get", argument="40-mine")
    assert answer == f"{_token(RULE).decode()}\n{RULE.decode()}"
    changed = RULE + b"# and more\n"
    payload = _token(RULE) + b"\n" + changed
    assert await instance.ok("policy.Replace", argument="40-mine", payload=payload) == ""
    assert await instance.refused("policy.Replace", argument="40-mine", payload=payload) == TOKEN
    assert await instance.refused("policy.Remove", argument="40-mine", payload=b"new") == TOKEN
    await instance.ok("policy.Remove", argument="40-mine", payload=_token(changed))
    assert await instance.refused("policy.Get", argument="40-mine") == MISSING
    assert await instance.refused("policy.Remove", argument="40-mine", payload=b"any") == MISSING


async def test_a_change_that_could_not_be_read_is_none(instance: Instance) -> None:
    for content in (b"nonsense\n", b"!include include/nothing\n", b"\xff"):
        refused = await instance.refused(
            "policy.Replace", argument="30-user", payload=b"any\n" + content
        )
        assert refused == SYNTAX
    payload = b"any\n!include include/mine\n"
    await instance.ok("policy.include.Replace", argument="mine", payload=b"new\n" + RULE)
    await instance.ok("policy.Replace", argument="30-user", payload=payload)
    refused = await instance.refused("policy.include.Remove", argument="mine", payload=b"any")
    assert refused == SYNTAX
    bad = b"any\nnonsense\n"
    assert await instance.refused("policy.include.Replace", argument="mine", payload=bad) == SYNTAX
    assert (instance.home / "policy.d" / "include" / "mine").read_bytes() == RULE


@pytest.mark.parametrize(
    ("method", "argument", "payload", "refusal"),
    [
        ("policy.Replace", "30-user", b"any", FORM),
        ("policy.Replace", "30-user", b"sha256:12\n", FORM),
        ("policy.Replace", "30-user", b"new\n", TOKEN),
        ("policy.Replace", "a.b", b"any\n", NAME),
        ("policy.Replace", "", b"any\n", NAME),
        ("policy.Replace", "Upper", b"any\n", NAME),
        ("policy.Get", "nothing", b"", MISSING),
        ("policy.Get", "a+b", b"", NAME),
        ("policy.Remove", "nothing", _token(b""), TOKEN),
        ("policy.GetFiles", "", b"", FORM),
        ("policy.GetFiles", "a+b", b"", FORM),
    ],
)
async def test_what_is_wrong_is_told_by_its_class(
    instance: Instance, method: str, argument: str, payload: bytes, refusal: str
) -> None:
    assert await instance.refused(method, argument=argument, payload=payload) == refusal


async def test_files_with_a_rule_are_told_in_the_order_of_rules(instance: Instance) -> None:
    await instance.ok("policy.Replace", argument="50-more", payload=b"new\nqubes.Gpg * a b deny\n")
    await instance.ok("policy.Replace", argument="60-all", payload=b"new\n* * a b deny\n")
    assert (await instance.ok("policy.GetFiles", argument="qubes.Gpg")).split() == [
        "50-more",
        "60-all",
    ]
    included = (await instance.ok("policy.GetFiles", argument="qubes.Filecopy")).split()
    assert included == ["60-all", "90-default"]


async def test_changes_at_once_are_made_one_after_the_other(instance: Instance) -> None:
    calls = (
        instance.ask("policy.Replace", argument="40-mine", payload=b"new\n# %d\n" % number)
        for number in range(10)
    )
    answers = await asyncio.gather(*calls)
    assert sum(isinstance(answer, bytes) for answer in answers) == 1


async def test_the_default_policy_is_renewed_where_nobody_changed_it(tmp_path: Path) -> None:
    place = tmp_path / "policy.d"
    defaults.put_in_place(place)
    (place / "90-default.policy").write_text("# mine\n")
    (place / "35-compat.policy").unlink()
    (place / "30-user.policy").write_text("test.A * a b deny\n")
    defaults.put_in_place(place)
    assert (place / "90-default.policy").read_text() == "# mine\n"
    assert (place / "30-user.policy").read_text() == "test.A * a b deny\n"
    assert not (place / "35-compat.policy").exists()
