"""qrexec-legacy-convert: rules of the old format find their place, and files their way back."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from insula.protocol.policy.rules import Called, Rule, parse_line, parse_old_line
from insula.tools import policy_convert
from insula.tools.policy.legacy import by_file, text_form, to_convert
from tests.serving import TEMPLATE, Instance, serving


def old(service: str, line: str, argument: str | None = None) -> Rule:
    found = parse_old_line("/legacy/x", 1, line, Called(service, argument))
    assert isinstance(found, Rule)
    return found


def new(line: str) -> Rule:
    found = parse_line("/policy.d/x.policy", 1, line)
    assert isinstance(found, Rule)
    return found


@pytest.mark.parametrize(
    ("service", "line", "file"),
    [
        ("qubes.ClipboardPaste", "work vault ask", "50-config-clipboard"),
        ("qubes.ClipboardPaste", "work vault allow", "30-user"),
        ("qubes.Filecopy", "work vault allow", "50-config-filecopy"),
        ("qubes.Filecopy", "work vault allow,user=root", "30-user"),
        ("qubes.Filecopy", "work vault ask,default_target=vault", "30-user"),
        ("qubes.UpdatesProxy", "$type:TemplateVM $default allow,target=net", "50-config-updates"),
        ("qubes.UpdatesProxy", "$anyvm $default allow,target=net", "30-user"),
        ("qubes.UpdatesProxy", "work $anyvm deny", "30-user"),
        ("qubes.OpenInVM", "work $dispvm allow", "50-config-openinvm"),
        ("qubes.OpenInVM", "work $dispvm allow,target=$dispvm:dvm", "50-config-openinvm"),
        ("qubes.OpenInVM", "work $dispvm allow,target=vault", "30-user"),
        ("qubes.OpenURL", "work vault allow", "30-user"),
        ("qubes.InputMouse", "sys-usb dom0 allow", "50-config-input"),
        ("qubes.InputMouse", "sys-usb $adminvm ask,default_target=dom0", "50-config-input"),
        ("qubes.InputMouse", "$anyvm dom0 allow", "30-user"),
        ("u2f.Register", "work sys-usb allow", "50-config-u2f"),
        ("acme.Ping", "work vault allow", "30-user"),
    ],
)
def test_each_rule_has_its_file(service: str, line: str, file: str) -> None:
    rule = old(service, line)
    assert by_file([rule]) == {file: [rule]}


def test_the_argument_decides_where_keys_go() -> None:
    authenticate = old("policy.RegisterArgument", "a b allow", "+u2f.Authenticate")
    other = old("policy.RegisterArgument", "a b allow", "+acme.Ping")
    one_key = old("u2f.Authenticate", "a b allow", "+0123")
    assert by_file([authenticate, other, one_key]) == {
        "50-config-u2f": [authenticate],
        "30-user": [other, one_key],
    }


def test_only_the_first_rule_of_an_input_is_simple() -> None:
    first = old("qubes.InputMouse", "sys-usb dom0 allow")
    second = old("qubes.InputMouse", "sys-usb dom0 deny")
    other = old("qubes.InputKeyboard", "sys-usb dom0 deny")
    assert by_file([first, second, other]) == {
        "50-config-input": [first, other],
        "30-user": [second],
    }


def test_what_is_there_already_and_what_nothing_reaches_is_left_out() -> None:
    kept, known, last = (
        old("acme.Ping", line) for line in ("a b allow", "a c ask", "$anyvm $anyvm deny")
    )
    late, other = old("acme.Ping", "c d allow"), old("acme.Pong", "c d allow")
    present = [new("acme.Ping * a c ask")]
    found = to_convert([kept, known, last, late, other], present)
    assert found == {"acme.Ping": [kept], "acme.Pong": [other]}


def test_the_text_form_says_all_that_a_rule_says() -> None:
    rule = new("* * a @anyvm ask default_target=b user=x notify=yes autostart=no")
    assert text_form(rule) == (
        "*\t*\ta\t@anyvm\task default_target=b user=x notify=yes autostart=no"
    )


@pytest_asyncio.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as instance:
        monkeypatch.setenv("INSULA_RUN", str(instance.run))
        monkeypatch.setenv("INSULA_HOME", str(instance.home))
        yield instance


async def _convert() -> int:
    return await asyncio.to_thread(policy_convert.main, [])


def _legacy(instance: Instance, **files: str) -> Path:
    place = instance.home / "qubes-rpc" / "policy"
    for name, text in files.items():
        (place / name).write_text(text)
    return place


async def test_files_are_converted_and_set_aside(running: Instance) -> None:
    place = _legacy(running, acmePing="dom0 $anyvm deny\n$anyvm dom0 ask\n")
    user = running.home / "policy.d" / "30-user.policy"
    user.write_text("# mine\n")
    (place / "acmePing.rpmsave").write_text("older\n")
    assert await _convert() == 0
    text = user.read_text()
    assert text.endswith("acmePing\t*\t@anyvm\tdom0\task\n# mine\n")
    assert (user.parent / "30-user.policy.bak").read_text() == "# mine\n"
    assert sorted(path.name for path in place.iterdir()) == [
        "acmePing.rpmsave",
        "acmePing.rpmsave.rpmsave",
    ]


async def test_a_change_of_meaning_is_taken_back(
    running: Instance, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A rule of the old format would come before one that it came after."""
    await running.template()
    place = _legacy(running, acmePing=f"{TEMPLATE} dom0 allow\n")
    policy = running.home / "policy.d"
    (policy / "32-later.policy").write_text(f"acmePing * {TEMPLATE} dom0 ask\n")
    before = {path.name: path.read_text() for path in policy.glob("*") if path.is_file()}
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert await _convert() == 1
    assert "means something else" in capfd.readouterr().out
    assert {path.name: path.read_text() for path in policy.glob("*") if path.is_file()} == before
    assert [path.name for path in place.iterdir()] == ["acmePing"]
