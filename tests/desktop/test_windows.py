"""Windows of a qube on the desktop, by the real agent and the real viewer."""

from tests.desktop.joined import BLUE, Joined, ring


def test_a_terminal_appears_in_its_labels_frame(joined: Joined) -> None:
    with joined.qube.program("xterm", "-title", "hello", "-geometry", "60x15"):
        shown = joined.shown("hello")
        assert shown.title == "[work] hello"
        assert ring(joined.desktop.pixels(shown.outer), 4) == {BLUE}
