"""Requests as they come: their form, whom they are for, and what is answered without a word."""

import pytest

from insula.protocol import admin
from insula.protocol.admin import MAX_REQUEST, Refusal
from tests.serving import TEMPLATE, Instance

LIST = b"admin.vm.List dom0 name dom0\0"


@pytest.mark.parametrize(
    "request_",
    [
        LIST,
        b"admin.vm.List+ dom0 name dom0\0",
        b"admin.vm.List dom0 keyword adminvm\0",
        b"admin.vm.List uuid:00000000-0000-0000-0000-000000000000 name dom0\0",
        b"admin.vm.List dom0 name uuid:00000000-0000-0000-0000-000000000000\0",
    ],
)
async def test_requests_that_mean_the_same(instance: Instance, request_: bytes) -> None:
    assert await instance.raw(request_) == await instance.raw(LIST)


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"admin.vm.List dom0 name dom0",
        b"admin.vm.List dom0 name\0",
        b"admin.vm.List  dom0 name dom0\0",
        b"admin.vm.List dom0 keyword dom0\0",
        b"admin.vm.List dom0 type adminvm\0",
        b"admin.vm.List d\xc3\xa4m0 name dom0\0",
        b"admin.vm.List+x dom0 name dom0\0",
        LIST + b"x",
        b"admin.vm.Lists dom0 name dom0\0",
        b"internal.GetSystemInfo dom0 name dom0\0",
        b"admin.vmclass.List dom0 name work\0",
        b"\0",
    ],
)
async def test_requests_that_are_refused_without_a_word(
    instance: Instance, request_: bytes
) -> None:
    assert await instance.raw(request_) == b""


@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [
        ("dom0", "nobody", "QubesVMNotFoundError"),
        ("nobody", "dom0", "QubesVMNotFoundError"),
        ("nobody", "1st", "QubesVMNotFoundError"),  # the source is looked at first
        ("dom0", "1st", "QubesValueError"),
        ("dom0", "none", "QubesValueError"),
        ("dom0", "a-dm", "QubesValueError"),
        ("dom0", "a" * 32, "QubesValueError"),
        ("dom0", "uuid:1", "QubesVMInvalidUUIDError"),
        ("dom0", "uuid:" + "0" * 36, "QubesVMInvalidUUIDError"),
        ("dom0", "uuid:" + "A0000000-0000-0000-0000-000000000000", "QubesVMInvalidUUIDError"),
        ("dom0", "uuid:" + "a0000000-0000-0000-0000-000000000000", "QubesVMNotFoundError"),
    ],
)
async def test_names_are_looked_up_before_the_method(
    instance: Instance, source: str, destination: str, kind: str
) -> None:
    for method in ("admin.vm.List", "no.such.Method"):
        answer = await instance.ask(method, destination, source=source)
        assert isinstance(answer, Refusal)
        assert answer.kind == kind


async def test_the_longest_request_is_served(instance: Instance) -> None:
    header = b"admin.vm.feature.Set+x dom0 name work\0"
    longest = header + b"x" * (MAX_REQUEST - len(header))
    assert await instance.raw(longest) == b"0\0"
    assert await instance.ok("admin.vm.feature.Get", "work", "x") == "x" * (
        MAX_REQUEST - len(header)
    )


async def test_a_byte_more_is_too_long(instance: Instance) -> None:
    header = b"admin.vm.feature.Set+x dom0 name work\0"
    try:
        answer = await instance.raw(header + b"x" * (MAX_REQUEST - len(header) + 1))
    except ConnectionError:
        answer = b""  # Aborted at once, perhaps before all was sent.
    assert answer == b""
    assert await instance.refused("admin.vm.feature.Get", "work", "x") == (
        "QubesFeatureNotFoundError"
    )


async def test_a_refusal_is_told_with_its_way_out(instance: Instance) -> None:
    answer = await instance.raw(b"admin.vm.Shutdown dom0 name work\0")
    kind, traceback, message, rest = answer[2:].split(b"\0")
    assert answer.startswith(b"2\0")
    assert (kind, traceback, rest) == (b"QubesVMNotStartedError", b"", b"")
    assert message == b"Qube work is not started\nStart it with: qvm-start work"


async def test_percent_signs_survive_what_clients_do_to_messages(instance: Instance) -> None:
    answer = await instance.raw(b"admin.vm.property.Get+100% dom0 name work\0")
    message = answer.split(b"\0")[3].decode()
    assert "100%" in message % ()


async def test_a_source_is_believed(instance: Instance) -> None:
    """Whoever opens the socket may act for any qube; what qubes may is asked of policy before."""
    assert isinstance(
        await instance.ask("admin.vm.property.Get", "work", "label", source="work"), bytes
    )
    await instance.disposables()
    made = await instance.ask("admin.vm.CreateDisposable", "dom0", source="work")
    assert isinstance(made, bytes)
    qube = instance.system.named(made.decode())
    assert {"created-by-work", "disp-created-by-work"} <= qube.tags


async def test_no_qube_sees_others_without_a_policy(instance: Instance) -> None:
    assert await instance.ask("admin.vm.List", "dom0", source="work") == b""


async def test_only_dom0_changes_who_made_a_qube(instance: Instance) -> None:
    for method in ("admin.vm.tag.Set", "admin.vm.tag.Remove"):
        assert await instance.ask(method, "work", "created-by-x", source=TEMPLATE) is None
    assert await instance.ask("admin.vm.tag.Set", "work", "mine", source=TEMPLATE) == b""


async def test_faults_of_ours_are_answered_without_a_word(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_self: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("insula.daemon.model.system.System.in_order", breaks)
    assert await instance.raw(LIST) == b""
    assert await instance.ok("admin.vm.tag.List", "work") != ""


def test_a_header_is_split_at_its_first_four_spaces() -> None:
    request = admin.parse_request(b"a.B+x+y dom0 name some thing")
    assert request == ("a.B", "x+y", "dom0", "some thing")
