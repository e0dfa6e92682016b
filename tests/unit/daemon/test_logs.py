"""The daemon's log: a qube cannot fill it, and what was left out of it is counted."""

import logging

import pytest

from insula.daemon import logs


def line(level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "call denied", "levelno": level, **fields})


def test_a_qube_has_a_quota_of_lines_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    quota = logs.Quota()
    kept = [quota.filter(line(qube="bad")) for _ in range(logs.MOST_LINES + 7)]
    assert kept.count(True) == logs.MOST_LINES
    assert quota.filter(line(source="work"))
    assert quota.filter(line())
    assert quota.filter(line(logging.ERROR, qube="bad"))
    assert not quota.filter(line(logging.WARNING, source="bad"))
    now += 1 / logs.LINES_A_SECOND
    again = line(qube="bad")
    assert quota.filter(again)
    assert vars(again)["left_out"] == 8
    assert not quota.filter(line(qube="bad"))


def test_who_is_quiet_is_forgotten_and_has_all_of_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    quota = logs.Quota()
    for number in range(50):
        assert quota.filter(line(qube=f"disp{number}"))
    now += logs.MOST_LINES / logs.LINES_A_SECOND + 1
    kept = [quota.filter(line(qube="disp1")) for _ in range(logs.MOST_LINES + 1)]
    assert kept.count(True) == logs.MOST_LINES
    assert list(quota._accounts) == ["disp1"]
