"""Configurations of services: any bytes are one, or a mistake with its line."""

from contextlib import suppress

from insula.protocol.errors import ProtocolError
from insula.protocol.service_config import ServiceConfig, parse_service_config
from tests.fuzz.spelling import spelled

_WORDS = (
    b"wait-for-session", b"force-user", b"skip-service-descriptor", b"exit-on-service-eof",
    b"exit-on-client-eof", b"=", b"true", b"false", b"'root'", b"\r\n",
)  # fmt: skip


def fuzz(data: bytes) -> None:
    """One input: a file, as it is and spelled in words."""
    _check(data)
    _check(spelled(data, _WORDS))


def _check(data: bytes) -> None:
    """What a file says, said plainly, is the same."""
    with suppress(ProtocolError):
        config = parse_service_config(data)
        assert parse_service_config(_plainly(config)) == config
        assert parse_service_config(data.replace(b"\n", b"\n#'\n")) == config
        assert b"\0" not in data


def _plainly(config: ServiceConfig) -> bytes:
    lines = [
        f"wait-for-session={int(config.wait_for_session)}",
        *([] if config.force_user is None else [f"force-user='{config.force_user}'"]),
        f"skip-service-descriptor = {str(config.skip_service_descriptor).lower()}",
        f"exit-on-service-eof\t=\t{str(config.exit_on_service_eof).lower()}  # as it is",
        f"exit-on-client-eof={str(config.exit_on_client_eof).lower()}",
        *(f"{key}=0" for key in config.unknown),
    ]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")
