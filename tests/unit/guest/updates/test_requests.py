"""What is asked of the updates proxy: read strictly, and passed on without what is ours alone."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.guest.updates.requests import BadRequestError, Request, parse


def status(untrusted: bytes) -> str:
    with pytest.raises(BadRequestError) as caught:
        parse(untrusted)
    return caught.value.status[:3]


def test_a_tunnel_leads_to_https_or_rsync_and_nowhere_else() -> None:
    assert parse(b"CONNECT mirror.example:443 HTTP/1.1") == Request("mirror.example", 443, None)
    assert parse(b"CONNECT [2001:db8::1]:873 HTTP/1.0") == Request("2001:db8::1", 873, None)
    for port in (b"22", b"80", b"8443", b"25"):
        assert status(b"CONNECT mirror.example:" + port + b" HTTP/1.1") == "403"
    for port in (b"0", b"65536", b"", b"-1"):
        assert status(b"CONNECT mirror.example:" + port + b" HTTP/1.1") == "400"


def test_a_plain_request_goes_on_as_its_server_expects_it() -> None:
    request = parse(
        b"GET http://mirror.example/debian/dists/bookworm/InRelease HTTP/1.1\r\n"
        b"Host: mirror.example\r\nProxy-Authorization: x\r\nConnection: keep-alive\r\n"
        b"Proxy-Connection: keep-alive\r\nIf-Modified-Since: now"
    )
    assert (request.host, request.port) == ("mirror.example", 80)
    assert request.head == (
        b"GET /debian/dists/bookworm/InRelease HTTP/1.1\r\nHost: mirror.example\r\n"
        b"If-Modified-Since: now\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("target", "port", "path"),
    [
        (b"http://host", 80, b"/"),
        (b"HTTP://host:3142/a?b", 3142, b"/a?b"),
        (b"http://host?b", 80, b"/?b"),
    ],
)
def test_ports_and_paths_are_as_they_were_given(target: bytes, port: int, path: bytes) -> None:
    request = parse(b"GET " + target + b" HTTP/1.1")
    assert request.port == port
    assert request.head is not None
    assert request.head.startswith(b"GET " + path + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"GET / HTTP/1.1",
        b"GET ftp://host/ HTTP/1.1",
        b"GET http://user@host/ HTTP/1.1",
        b"GET http://host/ HTTP/2.0",
        b"get http://host/ HTTP/1.1",
        b"GET http://host/ HTTP/1.1\r\n folded: yes",
        b"GET http://host/ HTTP/1.1\r\nbare\nline: yes",
        b"GET http://ho\x00st/ HTTP/1.1",
    ],
)
def test_what_is_no_request_is_refused(untrusted: bytes) -> None:
    assert status(untrusted) == "400"


@given(untrusted=st.binary(max_size=300))
def test_any_bytes_give_a_request_or_a_refusal(untrusted: bytes) -> None:
    with suppress(BadRequestError):
        parse(b"GET http://host/" + untrusted)
    with suppress(BadRequestError):
        parse(untrusted)


@given(
    fields=st.lists(
        st.tuples(st.from_regex(rb"\A[a-zA-Z-]{1,12}\Z"), st.from_regex(rb"\A[ -~]{0,20}\Z")),
        max_size=6,
    )
)
def test_a_server_is_always_told_that_there_is_one_request(
    fields: list[tuple[bytes, bytes]],
) -> None:
    lines = [b"GET http://host/ HTTP/1.1", *(name + b": " + value for name, value in fields)]
    head = parse(b"\r\n".join(lines)).head
    assert head is not None
    said = [line for line in head.split(b"\r\n") if line.lower().startswith(b"connection:")]
    assert said == [b"Connection: close"]
