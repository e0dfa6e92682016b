"""What qubes tell of their applications: what is kept of it, and what is not."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.protocol import menus
from insula.protocol.desktop_entries import exec_line
from insula.protocol.errors import ProtocolError
from insula.protocol.menus import Application, take_applications, told_of

FIREFOX = """[Desktop Entry]
Name=Firefox
Name[de]=Feuerfuchs
GenericName=Web Browser
Exec=firefox %u
Icon=firefox
Categories=Network;WebBrowser;X-Own;Screensaver;Network;
StartupWMClass=firefox

[Desktop Action new]
Name=New window
"""


def take(*lines: str) -> dict[str, Application]:
    return take_applications([line.encode() for line in lines])


def test_what_an_honest_qube_tells_comes_through() -> None:
    lines = list(told_of("firefox.desktop", FIREFOX))
    assert "firefox.desktop:Exec=qubes-desktop-run firefox.desktop" in lines
    assert take(*lines) == {
        "firefox": Application(
            id="firefox",
            name="Firefox",
            generic_name="Web Browser",
            icon="firefox",
            categories=("Network", "WebBrowser"),
            window_class="firefox",
        )
    }


@pytest.mark.parametrize("more", ["NoDisplay=true", "Categories=Screensaver;"])
def test_what_a_qube_hides_is_not_told(more: str) -> None:
    assert not list(told_of("x.desktop", f"[Desktop Entry]\nName=X\n{more}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "a.desktop:Name=Ümlaut",
        "a.desktop:Name=Yahoo!",
        "a.desktop:Name=<b>",
        "a.desktop:Name=%VMNAME%",
        "a.desktop:Name=",
        "a.desktop:Name=   ",
        "a.desktop:Name=a\x1b[31m",
        "a.desktop:Name=a\0",
        "a.desktop:Name[de]=A",
        "a.desktop:Exec=rm",
        "a.desktop:X-Qubes-VmName=vault",
        "a.desktop: Name=A",
        "../a.desktop:Name=A",
        "a/b.desktop:Name=A",
        ".desktop:Name=A",
        "a:Name=A",
        "a.desktop:Name",
        f"{'a' * 129}.desktop:Name=A",
        f"a.desktop:Name={'A' * 1024}",
        "",
    ],
)
def test_a_line_that_is_not_as_it_must_be_is_dropped(line: str) -> None:
    assert take(line, "good.desktop:Name=Good") == {"good": Application("good", "Good")}


def test_a_value_that_is_not_as_it_must_be_costs_its_key_alone() -> None:
    taken = take(
        "a.desktop:Name=A", "a.desktop:Icon=$(x)", "a.desktop:Comment=It's", "a.desktop:Name=B"
    )
    assert taken == {"a": Application("a", "A")}


def test_there_is_an_end_to_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{number}.desktop:Name=A" for number in range(menus.MAX_APPLICATIONS + 1)]
    with pytest.raises(ProtocolError, match="applications"):
        take(*many)
    assert len(take(*many[1:])) == menus.MAX_APPLICATIONS
    monkeypatch.setattr(menus, "MAX_LINES", 3)
    with pytest.raises(ProtocolError, match="lines"):
        take("", "", "", "")


@given(st.lists(st.binary() | st.builds(lambda end: b"a.desktop:Name=" + end, st.binary())))
def test_whatever_a_qube_tells_is_printable(untrusted: list[bytes]) -> None:
    with suppress(ProtocolError):
        for name, application in take_applications(untrusted).items():
            assert name == application.id
            assert application.name.isascii()
            assert application.name.isprintable()
            assert application.name.strip() == application.name != ""


def test_words_of_a_line_stay_words() -> None:
    line = exec_line(["qvm-run", "/a b/$x", "50%", 'say "\\`'])
    assert line == 'qvm-run "/a b/\\\\$x" "50%%" "say \\\\"\\\\\\\\\\\\`"'
