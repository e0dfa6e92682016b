"""A picture of what a qube could reach."""

from collections.abc import Sequence
from xml.etree import ElementTree

from insula.protocol.policy.reach import Step

_FREE, _ASKED, _OTHER = "#cc0000", "#f57900", "#555753"
_ROW, _TOP, _LEFT, _RIGHT = 34, 60, 150, 520
_WIDTH = 1100
_BOX = 26
_MOST_NAMES = 4


def draw(qube: str, steps: Sequence[Step]) -> str:
    """An SVG: the qube, a line to each that it reaches, red where nobody is asked."""
    targets: dict[str, list[Step]] = {}
    for step in steps:
        targets.setdefault(step.target, []).append(step)
    height = _TOP + max(1, len(targets)) * _ROW + 20
    top = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        width=str(_WIDTH),
        height=str(height),
        viewBox=f"0 0 {_WIDTH} {height}",
    )
    style = {"font-family": "sans-serif", "font-size": "13"}
    ElementTree.SubElement(top, "rect", width="100%", height="100%", fill="white")
    title = f"What {qube} could reach: red without a confirmation, orange with one, grey otherwise"
    _text(top, 20, 28, title, {**style, "font-weight": "bold"})
    middle = _TOP + len(targets) * _ROW // 2
    _box(top, 20, middle, qube, style)
    for number, (target, found) in enumerate(targets.items()):
        y = _TOP + number * _ROW + _BOX // 2
        colour = _colour(found)
        ElementTree.SubElement(
            top, "path",
            d=f"M{_LEFT},{middle} C{_LEFT + 150},{middle} {_RIGHT - 150},{y} {_RIGHT},{y}",
            stroke=colour, fill="none",
        ).set("stroke-width", "2")  # fmt: skip
        _box(top, _RIGHT, y, target, style)
        _text(top, _RIGHT + 190, y + 5, _names(found), {**style, "fill": colour})
    return ElementTree.tostring(top, encoding="unicode")


def _colour(steps: Sequence[Step]) -> str:
    calls = [one for one in steps if one.how == "call"]
    if any(not one.asked for one in calls):
        return _FREE
    return _ASKED if calls else _OTHER


def _names(steps: Sequence[Step]) -> str:
    names = list(dict.fromkeys(one.called or one.how for one in steps))
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _box(top: ElementTree.Element, x: int, y: int, text: str, style: dict[str, str]) -> None:
    ElementTree.SubElement(
        top, "rect", x=str(x), y=str(y - _BOX // 2), width=str(_LEFT - 20), height=str(_BOX),
        rx="4", fill="#eeeeec", stroke="#555753",
    )  # fmt: skip
    _text(top, x + 8, y + 5, text, style)


def _text(top: ElementTree.Element, x: int, y: int, text: str, style: dict[str, str]) -> None:
    ElementTree.SubElement(top, "text", {"x": str(x), "y": str(y), **style}).text = text
