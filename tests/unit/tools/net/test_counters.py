"""What providers say of their clients' traffic: believed as far as it is numbers, and in time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.client import errors
from insula.tools.net import counters
from insula.tools.net.counters import Counted, parse


def test_each_card_is_a_client() -> None:
    assert parse("vif12.0 100 2000\nvif7.0 0 5\n") == {12: Counted(100, 2000), 7: Counted(0, 5)}


@pytest.mark.parametrize(
    "line", ["", "vif1.0 1", "vif1.1 1 2", "eth0 1 2", "vif1.0 -1 2", "vif1.0 1 2 3", "vifx.0 1 2"]
)
def test_what_is_no_count_is_passed_over(line: str) -> None:
    assert parse(f"{line}\nvif2.0 3 4\n") == {2: Counted(3, 4)}


@given(st.text())
def test_anything_can_be_said(untrusted: str) -> None:
    parse(untrusted)


def test_who_does_not_answer_in_time_or_not_at_all_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counters, "TIMEOUT", 0.3)

    def asking(provider: str) -> bytes:
        if provider == "slow":
            time.sleep(2)
        if provider == "broken":
            raise errors.QubesException("no such service")
        return b"vif3.0 1 2\n"

    assert counters.read(["good", "slow", "broken"], asking) == {"good": {3: Counted(1, 2)}}
