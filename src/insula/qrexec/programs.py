"""From a command to what can be started: a program's words, environment and user, or a socket."""

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from insula.protocol.command import Command, ServiceCall, decode_vmexec, words_of
from insula.protocol.errors import ProtocolError
from insula.protocol.qrexec import EXIT_NOT_FOUND, EXIT_QREXEC_FAILED
from insula.protocol.service_config import ServiceConfig
from insula.qrexec.accounts import ACCOUNTS
from insula.qrexec.conversation import Conversation, converse
from insula.qrexec.services import (
    AGENT_VOLUME,
    CONFIG_SEARCH,
    SEARCH,
    BrokenServiceError,
    Found,
    find_config,
    find_service,
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXEC_SERVICES = ("qubes.VMExec", "qubes.VMExecGUI", "qubes.VMRootExec")
_WORDS = (2, 4)
_OURS = "QREXEC"
_DISPLAY_SOCKET = "/tmp/.X11-unix/X0"


class NotStartedError(Exception):
    """A command cannot be started; code is its exit code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: argv and the file behind it, as whom, with which environment.

    after_session: only once the user's session is up. log_tag: under which the system log has what
    it writes to standard error, if at all. before: called in its process before it becomes the
    program.
    """

    argv: list[bytes]
    executable: bytes
    user: pwd.struct_passwd
    environment: dict[str, str]
    after_session: bool = False
    log_tag: str | None = None
    before: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Searches:
    """Directories of services and of their configurations, with ":" between."""

    services: str = SEARCH
    configs: str = CONFIG_SEARCH

    @classmethod
    def of_environment(cls) -> "Searches":
        """Those that the environment names, else the usual ones."""
        return cls(
            os.environ.get("QREXEC_SERVICE_PATH", SEARCH),
            os.environ.get("QUBES_RPC_CONFIG_PATH", CONFIG_SEARCH),
        )


def resolve(
    command: Command,
    default_user: str,
    searches: Searches,
    *,
    login: bool = True,
    inherits: bool = False,
) -> Program | Conversation:
    """Find out what a command runs.

    login: by a login shell, so that the user's profile applies. inherits: with what our own
    environment has beside what belongs to the user.

    Raises:
        NotStartedError: no such user or service, or a service that cannot be run.
    """
    name = default_user if command.user == "DEFAULT" else command.user
    service = command.service
    if service is None:
        user = _user(name)
        shell = (user.pw_shell if login else "") or "/bin/sh"
        argv = [_called(shell, login=login), b"-c", os.fsencode(command.shell or "")]
        environment = _environment(user, inherits=inherits)
        environment["QREXEC_AGENT_PID"] = str(os.getpid())
        return Program(argv, os.fsencode(shell), user, environment)
    found, config = look_up(service, searches)
    if found.kind != "program":
        return _conversation(service, found, config)
    user = _user(config.force_user or name)
    after_session = config.wait_for_session and not command.nogui
    environment = _environment(user, inherits=inherits) | _service_environment(service)
    if service.name in _EXEC_SERVICES and found.path.startswith(AGENT_VOLUME):
        program = _exec_directly(service, user, environment)
        return replace(program, after_session=after_session, log_tag=_log_tag(service))
    words = [_called("/bin/sh", login=login), b"-c", b'exec "$0" "$@"', *_words(service, found)]
    return Program(words, b"/bin/sh", user, environment, after_session, _log_tag(service))


def _log_tag(service: ServiceCall) -> str:
    return f"{service.descriptor}-{service.source}"


def resolve_in_session(command: Command, searches: Searches) -> Program | Conversation:
    """Find out what a command runs inside a user's session, whose environment it gets.

    Raises:
        NotStartedError: no such service, or one that cannot be run.
    """
    if command.service is not None:
        found = resolve_directly(command.service, searches, {})
        if isinstance(found, Program):
            found = replace(found, log_tag=_log_tag(command.service))
        return found
    shell = os.environ.get("SHELL") or "/bin/sh"
    argv = [os.fsencode(shell), b"-c", os.fsencode(command.shell or "")]
    environment = _inherited() | {"QREXEC_AGENT_PID": str(os.getpid())}
    return Program(argv, os.fsencode(shell), _own_user(), environment)


def resolve_directly(
    service: ServiceCall, searches: Searches, further: dict[str, str], *, configured: bool = True
) -> Program | Conversation:
    """Find out what a service runs where nothing lies in between: as who we are.

    further: variables for the program. configured: as in look_up.

    Raises:
        NotStartedError: no such service, or one that cannot be run.
    """
    found, config = look_up(service, searches, configured=configured)
    if found.kind != "program":
        return _conversation(service, found, config)
    environment = _inherited() | _service_environment(service) | further
    return Program(_words(service, found), os.fsencode(found.path), _own_user(), environment)


def _inherited() -> dict[str, str]:
    """What a program gets of our own environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) or name == "QREXEC_SERVICE_PATH"
    }


def _own_user() -> pwd.struct_passwd:
    return pwd.getpwuid(os.geteuid())


def look_up(
    service: ServiceCall, searches: Searches, *, configured: bool = True
) -> tuple[Found, ServiceConfig]:
    """Find a service and its configuration; configured: whether it may have one.

    Raises:
        NotStartedError: it is not there, or broken.
    """
    try:
        config = find_config(service, searches.configs) if configured else ServiceConfig()
        found = find_service(service, searches.services)
    except BrokenServiceError as error:
        raise NotStartedError(EXIT_QREXEC_FAILED, str(error)) from error
    if found is None:
        raise NotStartedError(EXIT_NOT_FOUND, f"no service {service.name}")
    if found.kind == "program" and len(words_of(service.descriptor)) not in _WORDS:
        raise NotStartedError(EXIT_QREXEC_FAILED, "not a service descriptor of two or four words")
    return found, config


def _conversation(service: ServiceCall, found: Found, config: ServiceConfig) -> Conversation:
    try:
        return converse(service, found, config)
    except BrokenServiceError as error:
        raise NotStartedError(EXIT_QREXEC_FAILED, str(error)) from error


def _words(service: ServiceCall, found: Found) -> list[bytes]:
    words = [os.fsencode(found.path)]
    if service.argument:
        words.append(os.fsencode(service.argument))
    return words


def _called(shell: str, *, login: bool) -> bytes:
    """What a shell is called by, which tells it what it is for."""
    return (b"-" if login else b"") + os.fsencode(Path(shell).name)


def _exec_directly(
    service: ServiceCall, user: pwd.struct_passwd, environment: dict[str, str]
) -> Program:
    """VMExec as this package ships it: no program in between."""
    try:
        argv = decode_vmexec(service.argument or "")
    except ProtocolError as error:
        raise NotStartedError(1, str(error)) from error
    for directory in (b"",) if b"/" in argv[0] else os.fsencode(_PATH).split(b":"):
        path = directory + b"/" + argv[0] if directory else argv[0]
        if os.access(path, os.X_OK):
            return Program(argv, path, user, environment)
    raise NotStartedError(EXIT_NOT_FOUND, f"no program {argv[0]!r}")


def _user(name: str) -> pwd.struct_passwd:
    try:
        user = ACCOUNTS.user(name)
    except (KeyError, ValueError):
        raise NotStartedError(EXIT_QREXEC_FAILED, f"no user {name!r}") from None
    if os.geteuid() != 0 and name != _own_user().pw_name:
        raise NotStartedError(EXIT_QREXEC_FAILED, f"an agent of another user cannot run as {name}")
    return user


def _environment(user: pwd.struct_passwd, *, inherits: bool) -> dict[str, str]:
    of_user = {
        "HOME": user.pw_dir,
        "SHELL": user.pw_shell or "/bin/sh",
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
    }
    environment = {"PATH": _PATH, "LANG": "C.UTF-8"} | (_inherited() if inherits else {}) | of_user
    if os.path.exists(_DISPLAY_SOCKET):  # noqa: PTH110 - on every call's path
        environment["DISPLAY"] = ":0"
    return environment


def _service_environment(service: ServiceCall) -> dict[str, str]:
    environment = {
        "QREXEC_REMOTE_DOMAIN": service.source,
        "QREXEC_SERVICE_FULL_NAME": service.full_name,
        "QREXEC_REQUESTED_TARGET_TYPE": "",
        "QREXEC_AGENT_PID": str(os.getpid()),
    }
    if service.argument is not None:
        environment["QREXEC_SERVICE_ARGUMENT"] = service.argument
    return environment
