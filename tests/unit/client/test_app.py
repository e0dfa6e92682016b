"""The object API and the calls under it, against a fake daemon."""

import socket
import threading
from pathlib import Path

import pytest

from insula.client import admin, errors
from insula.client.app import App, Qube
from insula.client.local_socket import LocalRequest, request
from insula.protocol.admin import MAX_REQUEST, Refusal
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, RefusedError, answer


@pytest.fixture
def work(daemon: FakeDaemon) -> FakeQube:
    return daemon.add(
        FakeQube(
            "work",
            properties={
                "netvm": answer("net", "vm"),
                "memory": answer("400", "int"),
                "debug": answer("False", "bool"),
                "label": answer("blue", "label"),
                "template": NONE,
                "stubdom_mem": answer("", "int"),
                "kernelopts": answer("a\\b\nc"),
            },
            features={"a": "1"},
            tags={"x"},
        )
    )


@pytest.mark.parametrize("cache", [False, True])
def test_properties_have_the_values_of_their_types(work: FakeQube, cache: bool) -> None:
    qube = App(cache=cache).domains[work.name]
    assert isinstance(qube.netvm, Qube)
    assert qube.netvm == "net"
    assert (qube.template, qube.label) == (None, "blue")
    assert (qube.memory, qube.debug, qube.kernelopts) == (400, False, "a\\b\nc")
    assert not hasattr(qube, "stubdom_mem")
    assert not hasattr(qube, "no_such")
    with pytest.raises(errors.QubesNoSuchPropertyError):
        _ = qube.no_such
    with pytest.raises(AttributeError):
        _ = qube.no_such


def test_properties_are_set_and_reset(work: FakeQube, daemon: FakeDaemon) -> None:
    app = App()
    qube = app.domains[work.name]
    qube.memory = 500
    qube.netvm = app.domains["dom0"]
    qube.template = None
    del qube.debug
    assert [call[1:] for call in daemon.asked("admin.vm.property.Set")] == [
        ("memory", b"500"),
        ("netvm", b"dom0"),
        ("template", b""),
    ]
    assert daemon.asked("admin.vm.property.Reset") == [("work", "debug", b"")]
    app.default_dispvm = qube
    assert app.default_dispvm == "work"


def test_features_and_tags_are_collections(work: FakeQube) -> None:
    qube = App().domains[work.name]
    qube.features["b"] = ""
    assert dict(qube.features) == {"a": "1", "b": ""}
    del qube.features["a"]
    assert qube.features.get("a") is None
    assert qube.features.check("b") == ""
    assert qube.features.check("none") is None
    qube.tags.add("y")
    qube.tags.discard("none")
    qube.tags.remove("x")
    assert set(qube.tags) == {"y"}
    with pytest.raises(KeyError):
        qube.tags.remove("x")


def test_qubes_are_found_by_name(work: FakeQube) -> None:
    app = App()
    assert [qube.name for qube in app.domains] == ["dom0", work.name]
    assert "work" in app.domains
    assert len(app.domains) == 2
    assert (app.domains["work"].klass, app.domains["work"].state) == ("AppVM", "Halted")
    with pytest.raises(errors.QubesVMNotFoundError, match="no such qube: 'none'"):
        _ = app.domains["none"]


def test_without_a_cache_a_change_is_seen(work: FakeQube) -> None:
    app, cached = App(), App(cache=True)
    before = app.domains["work"], cached.domains["work"]
    work.state = "Running"
    assert [qube.state for qube in before] == ["Running", "Halted"]
    assert before[0].is_running()


@pytest.mark.parametrize("cache", [False, True])
def test_properties_are_read_singly_where_all_at_once_is_forbidden(
    work: FakeQube, daemon: FakeDaemon, cache: bool
) -> None:
    daemon.silent.add(("admin.vm.property.GetAll", "work"))
    qube = App(cache=cache).domains[work.name]
    assert (qube.memory, qube.debug, qube.memory) == (400, False, 400)
    assert len(daemon.asked("admin.vm.property.Get")) == (2 if cache else 3)
    assert set(qube.get_all()) == set(work.properties)
    daemon.silent.add(("admin.vm.property.Get", "work"))
    qube.forget()
    assert qube.get_all() == {}
    with pytest.raises(errors.QubesPropertyAccessError):
        _ = qube.memory
    with pytest.raises(AttributeError):
        _ = qube.memory


def test_a_state_that_may_not_be_known_is_no_error(work: FakeQube, daemon: FakeDaemon) -> None:
    daemon.silent.add(("admin.vm.CurrentState", "work"))
    assert App().domains[work.name].state == "NA"


def test_refusals_are_exceptions_by_name(daemon: FakeDaemon) -> None:
    daemon.refusals["admin.vm.Start", "dom0"] = RefusedError("QubesVMNotPausedError", "50% done")
    with pytest.raises(errors.QubesVMNotStartedError, match="50% done") as caught:
        admin.ask_dom0("admin.vm.Start")
    assert (caught.value.kind, caught.value.api_name) == ("QubesVMNotPausedError",) * 2


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("QubesVMNotFoundError", KeyError),
        ("QubesValueError", ValueError),
        ("QubesPropertyValueError", ValueError),
        ("QubesMemoryError", MemoryError),
        ("QubesNotImplementedError", NotImplementedError),
        ("DeviceNotAssigned", KeyError),
        ("KeyError", KeyError),
        ("NotImplementedError", NotImplementedError),
    ],
)
def test_some_are_pythons_own_too(name: str, builtin: type[Exception]) -> None:
    error = errors.from_refusal(Refusal(name, "text 'quoted'\nhint"))
    assert isinstance(error, builtin)
    assert (str(error), error.hint, error.kind) == ("text 'quoted'", "hint", name)


@pytest.mark.parametrize(
    "name",
    [
        "NewError",
        "SystemExit",
        "ServiceFailedError",
        "NotThereError",
        "Refusal",
        "from_refusal",
        "__doc__",
    ],
)
def test_an_unknown_name_is_the_general_exception(name: str) -> None:
    error = errors.from_refusal(Refusal(name, "text"))
    assert type(error) is errors.QubesException
    assert error.kind == name


def test_no_answer_is_an_access_error(daemon: FakeDaemon) -> None:
    daemon.silent.add(("admin.vm.Start", "dom0"))
    with pytest.raises(errors.QubesDaemonAccessError):
        admin.ask_dom0("admin.vm.Start")


@pytest.mark.usefixtures("instance")
def test_no_daemon_is_an_error_of_its_own() -> None:
    with pytest.raises(errors.DaemonNotRunningError):
        admin.ask_dom0("admin.vm.Start")
    with pytest.raises(errors.DaemonNotRunningError):
        request("status")


@pytest.mark.parametrize("payload", [bytes(MAX_REQUEST), b""])
def test_what_cannot_be_sent_is_refused_here(payload: bytes) -> None:
    with pytest.raises(errors.QubesValueError):
        admin.call("a b", "admin.vm.Start", payload=payload)


def serve_once(path: Path, kind: int, sent: bytes) -> threading.Thread:
    """A peer that takes one connection, says something and leaves."""
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            if sent:
                connection.send(sent)
            while connection.recv(65_536):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("sent", [b"x", b"1\0\0e\0\0", b"2\0E\0"])
def test_something_that_is_no_answer_is_told(instance: Path, sent: bytes) -> None:
    thread = serve_once(instance / "qubesd.sock", socket.SOCK_STREAM, sent)
    with pytest.raises(errors.QubesDaemonCommunicationError):
        admin.ask_dom0("admin.vm.List", payload=b"x")
    thread.join(20)


def test_a_daemon_that_does_not_answer_in_time(instance: Path) -> None:
    thread = serve_once(instance / "local.sock", socket.SOCK_SEQPACKET, b"")
    with (
        LocalRequest() as asked,
        pytest.raises(errors.QubesDaemonCommunicationError, match="in time"),
    ):
        asked.ask("in time", {}, timeout=0.05)
    thread.join(20)


@pytest.mark.parametrize("sent", [b"no json", b"[]"])
def test_a_local_answer_that_is_none(instance: Path, sent: bytes) -> None:
    thread = serve_once(instance / "local.sock", socket.SOCK_SEQPACKET, sent)
    with pytest.raises(errors.QubesDaemonCommunicationError):
        request("status")
    thread.join(20)


def test_local_refusals_are_exceptions_by_name(daemon: FakeDaemon) -> None:
    def refuse(_fields: object) -> dict[str, object]:
        raise RefusedError("QubesVMInUseError", "not now")

    daemon.local["golden"] = refuse
    with pytest.raises(errors.QubesVMInUseError, match="not now"):
        request("golden", qube="work")
