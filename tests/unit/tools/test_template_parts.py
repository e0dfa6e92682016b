"""Versions, specs, records and requests of qvm-template."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.errors import ProtocolError, ReportableError
from insula.tools.templates import repositories
from insula.tools.templates.records import parse_answer
from insula.tools.templates.versions import Named, Version, compare

RISING = [
    "1.0~rc1", "1.0~rc1^git1", "1.0", "1.0^git1", "1.0^git2", "1.0a", "1.0b", "1.0.1", "1.1",
    "1.9", "1.10", "2", "10",
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(RISING) - 1))
def test_versions_rise_as_rpm_has_it(at: int) -> None:
    lower, higher = RISING[at : at + 2]
    assert compare(lower, higher) < 0 < compare(higher, lower)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0"), ("1.0", "1_0"), ("01", "1"), ("1.0.", "1.0"), ("a.b", "a+b")]
)
def test_some_versions_are_the_same(one: str, other: str) -> None:
    assert compare(one, other) == compare(other, one) == 0


VERSIONS = st.text("0123456789ab.~^-", min_size=1, max_size=8)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_versions_are_in_an_order(one: str, other: str, third: str) -> None:
    assert (compare(one, other) > 0) == (compare(other, one) < 0)
    if compare(one, other) <= 0 and compare(other, third) <= 0:
        assert compare(one, third) <= 0


def test_epochs_come_first_and_releases_last() -> None:
    order = [
        Version("0", "2", "1"), Version("0", "2", "2"), Version("0", "10", "1"),
        Version("1", "1", "1"), Version("10", "1", "1"),
    ]  # fmt: skip
    assert sorted(order, key=str) != order == sorted(order)
    assert str(order[0]) == "0:2-1"


@pytest.mark.parametrize(
    ("spec", "matches"),
    [
        ("fedora-42", True), ("fedora-*", True), ("*", True), ("fedora-42-4.2.0", True),
        ("fedora-42-4.2.0-2025", True), ("fedora-42-0:4.2.0", True), ("f?dora-4[12]", True),
        ("fedora-42-0:4.2.0-2025", True), ("fedora-42-0:*", True), ("fedora", False),
        ("fedora-42-1:4.2.0", False), ("fedora-42-2025", False), ("FEDORA-42", False),
    ],
)  # fmt: skip
def test_specs_stand_for_packages(spec: str, matches: bool) -> None:
    assert Named("fedora-42", Version("0", "4.2.0", "2025")).matches(spec) == matches


FIELDS = [
    "qubes-template-fedora-42", "0", "4.2.0", "20250101~1", "qubes-templates-itl", "1024",
    "2025-01-02 03:04", "GPL-3.0 (or later)", "https://example.org/?a=b", "A summary", "Two\nlines",
]  # fmt: skip


def record(at: int = 0, value: str | None = None) -> bytes:
    fields = list(FIELDS)
    if value is not None:
        fields[at] = value
    return ("|".join(fields) + "|\n").encode()


def test_records_are_read() -> None:
    one, other = parse_answer(record() + record(6, "1735787040"))
    assert (one.name, str(one.version), one.size) == ("fedora-42", "0:4.2.0-20250101~1", 1024)
    assert one.built == other.built == datetime(2025, 1, 2, 3, 4, tzinfo=UTC)
    assert one.description == "Two\nlines"
    assert one.file_name == "qubes-template-fedora-42-0:4.2.0-20250101~1.rpm"
    assert parse_answer(record(0, "debian"))[0].name == "debian"
    assert parse_answer(b"") == []


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, ""), (0, "../etc"), (0, "a b"), (0, "-x"), (0, " a"), (1, "x"), (1, ""), (2, "1-2"),
        (2, "$(id)"), (2, ""), (2, "1" * 129),
        (3, "1/2"), (4, "a b"), (4, ""), (5, "-1"), (5, "1.0"), (5, "9" * 20), (6, "yesterday"),
        (6, "2025-13-01 00:00"), (6, "2025-01-01 00:00:00"), (7, "a\x1bb"), (8, "a b"), (9, "a\nb"),
        (9, "\x1b[2J"), (10, "\x07"), (10, "ä"), (10, "a|b"),
    ],
)  # fmt: skip
def test_one_bad_record_fails_all(at: int, value: str) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(record() + record(at, value))


@pytest.mark.parametrize("rest", [b"x", record()[:-3], b"\xff", b"|\n"])
def test_what_is_no_record_fails_all(rest: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(record() + rest)


@given(st.binary() | st.text("ab|\n0:-").map(str.encode))
def test_any_bytes_are_records_or_an_error(untrusted: bytes) -> None:
    try:
        found = parse_answer(untrusted)
    except ProtocolError:
        return
    assert all(one.file_name.isprintable() and "/" not in one.file_name for one in found)


REPOSITORIES = """[itl]
name = ITL $releasever
gpgkey = file:///etc/qubes/repo-templates/keys/K-$releasever https://example.org/key
[community]
enabled = 0
"""


def enabled(*choices: tuple[str, str]) -> str:
    found = repositories.parse(REPOSITORIES, "4.3", choices)
    return " ".join(one.id for one in found if one.enabled)


def test_repositories_are_switched_in_the_order_given() -> None:
    assert enabled() == "itl"
    assert enabled(("--enablerepo", "community")) == "itl community"
    assert enabled(("--enablerepo", "*"), ("--disablerepo", "itl")) == "community"
    assert enabled(("--disablerepo", "itl"), ("--enablerepo", "itl")) == "itl"
    assert enabled(("--repoid", "community")) == "community"
    itl, community = repositories.parse(REPOSITORIES, "4.3", ())
    assert (itl.name, community.name) == ("ITL 4.3", "community")
    assert itl.keys == (Path("/etc/qubes/repo-templates/keys/K-4.3"),)
    assert community.keys == ()


def test_an_update_qube_is_told_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "KEYS", f"{tmp_path}/")
    (tmp_path / "key").write_bytes(b"the key")
    text = f"[itl]\ngpgkey=file://{tmp_path}/key file:///etc/passwd file://{tmp_path}/none\n"
    choices = [("--enablerepo", "a"), ("--disablerepo", "b"), ("--repoid", "c")]
    sent = repositories.request(
        text, "qubes-template-x*", releasever="4.3", refresh=True, choices=choices
    )
    assert sent.decode().splitlines() == [
        "--enablerepo=a", "--disablerepo=b", "--repoid=c", "--refresh", "--releasever=4.3",
        "qubes-template-x*", "---", *text.splitlines(),
        "###!Q!BEGIN-QUBES-WRAPPER!Q!###", f"#{tmp_path}/key",
        f"#{base64.b64encode(b'the key').decode()}", "###!Q!END-QUBES-WRAPPER!Q!###",
    ]  # fmt: skip
    plain = repositories.request("[a]\n", "p", releasever="4", refresh=False, choices=())
    assert plain == b"--releasever=4\np\n---\n[a]\n"


@pytest.mark.parametrize("package", ["a\n---", "---", "a\x1b"])
def test_what_would_break_a_request_is_refused(package: str) -> None:
    with pytest.raises(ReportableError):
        repositories.request("", package, releasever="4", refresh=False, choices=())


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.repo").write_text("[a]")
    (tmp_path / "b.repo").write_text("[b]\n")
    assert repositories.read_files([f"{tmp_path}/*.repo"]) == "[a]\n[b]\n"
    (tmp_path / "b.repo").write_bytes(b"\xff")
    with pytest.raises(ReportableError, match=r"b\.repo"):
        repositories.read_files([f"{tmp_path}/*.repo"])
    with pytest.raises(ReportableError, match="cannot be read"):
        repositories.parse("no section", "4", ())
