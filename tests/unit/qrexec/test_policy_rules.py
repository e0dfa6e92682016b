"""qrexec-policy-daemon and qrexec-policy-exec against qrexec-wire.md section 11."""

import json
import stat
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.qrexec.peer import TIMEOUT, Channel, wait_for_socket
from tests.unit.qrexec.place import UUID, Place, Process, place, rest

RULES = """
a.Allow * work vault allow
a.Allow * work dom0 allow user=root
a.Allow * work @dispvm allow
a.Allow * work far allow
a.Allow * relay relay allow
a.Allow * far vault allow notify=yes
a.Ask * work vault ask
a.Ask * work other ask default_target=vault
a.Ask * @anyvm @anyvm deny
a.Told * work @anyvm ask notify=yes
"""


def qube(number: int, klass: str = "AppVM", **fields: Any) -> dict[str, Any]:
    return {
        "type": klass, "tags": [], "uuid": UUID.format(number), "template_for_dispvms": False,
        "default_dispvm": None, "power_state": "Halted", "guivm": "dom0", "internal": None,
        "icon": "appvm-red", "relayvm": None, "transport_rpc": None, **fields,
    }  # fmt: skip


SYSTEM = {
    "dom0": qube(0, "AdminVM", uuid="00000000-0000-0000-0000-000000000000", guivm=None),
    "work": qube(1, default_dispvm="mould", tags=["guivm-gui"]),
    "vault": qube(2, tags=["guivm-gui"]),
    "other": qube(3),
    "mould": qube(4, template_for_dispvms=True),
    "relay": qube(5),
    "far": qube(6, "RemoteVM", relayvm="relay", transport_rpc="air.SSH", guivm=None),
}


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        (made.directory / "policy.d").mkdir()
        (made.directory / "policy.d" / "30-test.policy").write_text(RULES)
        listener = made.listen("qubesd.internal.sock")

        def serve() -> None:
            while True:
                try:
                    asking, _ = listener.accept()
                except OSError:
                    return
                with asking:
                    while asking.recv(4096):
                        pass
                    asking.sendall(b"0\0" + json.dumps({"domains": SYSTEM}).encode())

        listener.settimeout(None)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield made
        listener.shutdown(2)
        thread.join(TIMEOUT)


@pytest.fixture
def daemon(here: Place) -> Process:
    paths = {name: here.directory / name for name in ("policy", "eval", "gui")}
    process = here.start(
        "qrexec-policy-daemon",
        *("--policy-path", str(here.directory / "policy.d")),
        *("--socket-path", str(paths["policy"])),
        *("--eval-socket-path", str(paths["eval"])),
        *("--gui-socket-path", str(paths["gui"])),
    )
    for path in paths.values():
        wait_for_socket(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    return process


def told(here: Place, name: str, said: bytes, *, ends: bool = True) -> bytes:
    asking = here.connect(name)
    asking.connection.sendall(said)
    if ends:
        asking.connection.shutdown(1)
    return rest(asking)


def question(target: str, service: str, *further: str, source: str = "work") -> bytes:
    lines = (f"source={source}", f"intended_target={target}", f"service_and_arg={service}")
    return "".join(f"{line}\n" for line in (*lines, *further, "")).encode()


def allowed(target: str, uuid: str | None, *further: str, user: str = "DEFAULT") -> bytes:
    lines = [f"user={user}", "result=allow", f"target={target}"]
    lines += [f"target_uuid={uuid}"] if uuid else []
    return "\n".join([*lines, "autostart=True", *further]).encode()


VAULT = allowed("vault", f"uuid:{UUID.format(2)}", "requested_target=vault")
ADMIN = allowed("dom0", None, "requested_target=@adminvm", user="root")
RELAYED = ("requested_target=far", "service=air.SSH+far+a.Allow+")
ANSWERS = [
    (question("vault", "a.Allow+x"), VAULT),
    (question("vault", "a.Allow"), VAULT),
    (question("@adminvm", "a.Allow"), ADMIN),
    (
        question("@dispvm", "a.Allow+"),
        allowed("@dispvm:mould", f"@dispvm:uuid:{UUID.format(4)}", "requested_target=@dispvm"),
    ),
    (question("far", "a.Allow"), allowed("relay", f"uuid:{UUID.format(5)}", *RELAYED)),
    (
        question("vault", "a.Allow", "requested_source=far", source="relay"),
        VAULT + b"\npolicy_source=far",
    ),
    (question("vault", "a.Allow", "requested_source=far"), b"result=deny"),
    (question("vault", "a.Allow", "requested_source="), VAULT),
    (question("other", "a.Allow"), b"result=deny"),
    (question("vault", "a.Allow", "just_evaluate=yes"), b"result=allow"),
    (question("vault", "a.Ask", "just_evaluate=yes"), b"result=deny"),
    (question("vault", "a.Ask", "just_evaluate=yes", "assume_yes_for_ask=yes"), b"result=allow"),
    (question("vault", "a.Ask", "assume_yes_for_ask=yes"), VAULT),
    (question("relay", "a.Allow", source="relay"), b"result=deny"),
]


def test_answers(here: Place, daemon: Process) -> None:
    for asked, answer in ANSWERS:
        assert told(here, "policy", asked) == answer
        assert told(here, "policy", asked, ends=False) == answer
        assert told(here, "policy", asked.removesuffix(b"\n")) == answer
        assert told(here, "policy", asked + b"further=1\n\n\xff") == answer
    assert daemon.poll() is None


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        b"\n" + question("vault", "a.Allow"),
        question("vault", "a.Allow", "source=work"),
        question("vault", "a.Allow", "domain_id=1"),
        question("vault", "a.Allow", "just_evaluate=True"),
        question("vault", "a.Allow", "junk"),
        question("vault", "a.Allow").replace(b"source=work\n", b""),
        question("vault", "a.Allow").replace(b"work", b"w\xc3\xb6rk"),
        question("vault", "a.Allow" + "x" * 140_000),
    ],
)
def test_what_is_no_question_has_no_answer(here: Place, daemon: Process, said: bytes) -> None:
    assert told(here, "policy", said) == b""
    assert told(here, "policy", ANSWERS[0][0]) == ANSWERS[0][1]
    assert daemon.poll() is None


def test_changed_rules_are_read_at_the_next_question(here: Place, daemon: Process) -> None:
    (here.directory / "policy.d" / "10-first.policy").write_text("* * work vault deny\n")
    assert told(here, "policy", ANSWERS[0][0]) == b"result=deny"
    assert daemon.poll() is None


def test_what_would_become_of_a_call(here: Place, daemon: Process) -> None:
    def answer(pair: bytes, *, service: bytes = b"+a.Allow+x", name: str = "eval") -> bytes:
        return told(here, name, b"policy.Eval%b gui name dom0\0%b" % (service, pair))

    assert answer(b"work\0vault") == b"result=allow\n"
    assert answer(b"work\0other") == b"result=deny\n"
    assert answer(b"work\0vault", service=b"+a.Ask") == b"result=allow\n"
    assert answer(b"work\0@dispvm", service=b"+a.Ask") == b"result=deny\n"
    for pair in (b"", b"work", b"work\0", b"\0vault", b"wo:rk\0vault", b"w" * 32 + b"\0vault",
                 b"work\0" + b"v" * 64, b"work\0@dispvm:mould", b"work\0vault\0"):  # fmt: skip
        assert answer(pair) == b""
    for service in (b"", b"+", b"++a.Allow"):
        assert answer(b"work\0vault", service=service) == b""
    assert answer(b"work\0vault", name="gui") == b"result=allow\n"
    assert answer(b"work\0other", name="gui") == b""
    assert answer(b"work\0@dispvm", name="gui") == b""
    assert daemon.poll() is None


def test_the_person_is_asked_and_told(here: Place, daemon: Process) -> None:
    agent = here.listen("policy-agent.sock")

    def ask(service: str, target: str, answer: bytes) -> tuple[Channel, dict[str, Any]]:
        """What becomes of a call, and what the person was asked."""
        asking = here.connect("policy")
        asking.connection.sendall(question(target, service))
        asked = here.accept(agent)
        header, _, body = rest(asked).partition(b"\0")
        assert header == b"policy.Ask dom0 name dom0"
        asked.connection.sendall(answer)
        asked.connection.close()
        return asking, json.loads(body)

    asking, asked = ask("a.Ask+x", "vault", b"allow:other")
    assert rest(asking).startswith(b"user=DEFAULT\nresult=allow\ntarget=other\n")
    icons = asked.pop("icons")
    assert set(icons) == {*SYSTEM, "@dispvm:mould"}
    assert sorted(asked.pop("targets")) == ["other", "vault"]
    assert asked == {"source": "work", "service": "a.Ask", "argument": "+x", "default_target": ""}
    asking, asked = ask("a.Ask", "other", b"deny")
    assert asked["default_target"] == "vault"
    assert rest(asking) == b"result=deny"
    for answer in (b"allow:work", b"allow:vault\n", b"", b"yes"):
        asking, _ = ask("a.Ask", "vault", answer)
        notice = here.accept(agent)
        header, _, body = rest(notice).partition(b"\0")
        notice.connection.close()
        assert header == b"policy.Notify dom0 name dom0"
        assert json.loads(body) == {
            "resolution": "deny", "source": "work", "service": "a.Ask", "argument": "+",
            "target": "vault",
        }  # fmt: skip
        assert rest(asking) == b"result=deny"
    asking, _ = ask("a.Told", "vault", b"deny")
    assert json.loads(rest(here.accept(agent)).partition(b"\0")[2])["resolution"] == "deny"
    assert daemon.poll() is None


def test_a_refusal_is_told_with_what_was_asked_for(here: Place, daemon: Process) -> None:
    agent = here.listen("policy-agent.sock")
    asking = here.connect("policy")
    asking.connection.sendall(question("nothing-known", "a.Allow+"))
    notice = here.accept(agent)
    assert json.loads(rest(notice).partition(b"\0")[2])["target"] == "nothing-known"
    notice.connection.close()
    assert rest(asking) == b"result=deny"
    assert daemon.poll() is None


def test_one_question_as_a_program(here: Place) -> None:
    policy = ("--path", str(here.directory / "policy.d"))
    answer = ANSWERS[1][1] + b"\n"
    assert here.run("qrexec-policy-exec", *policy, "--", "work", "vault", "a.Allow") == (
        0,
        answer,
        b"",
    )
    refused = (1, b"result=deny\n", b"")
    assert here.run("qrexec-policy-exec", *policy, "work", "", "a.Allow")[:2] == refused[:2]
    just = ("--just-evaluate", *policy)
    assert here.run("qrexec-policy-exec", *just, "work", "vault", "a.Allow") == (0, b"", b"")
    assert here.run("qrexec-policy-exec", *just, "work", "vault", "a.Ask") == (1, b"", b"")
    assumed = ("--assume-yes-for-ask", *just)
    assert here.run("qrexec-policy-exec", *assumed, "work", "vault", "a.Ask") == (0, b"", b"")
    assert here.run("qrexec-policy-exec", *policy, "work", "vault")[0] == 2


def test_the_older_form_carries_the_call_out(here: Place) -> None:
    (here.directory / "bin").mkdir()
    script = here.directory / "bin" / "qrexec-client"
    script.write_text('#!/bin/sh\nprintf "%s|" "$@"; exit 7\n')
    script.chmod(0o755)
    here.environment["PATH"] = f"{here.directory}/bin:{here.environment['PATH']}"
    qubesd = here.listen("qubesd.sock")
    policy = ("--path", str(here.directory / "policy.d"))
    words = (*policy, "1", "work", "@adminvm", "a.Allow", "SOCKET7")
    command = b"-Ed|dom0|-c|SOCKET7,work,1|--|QUBESRPC a.Allow+ work keyword adminvm|"
    assert here.run("qrexec-policy-exec", *words) == (7, command, b"")
    words = (*policy, "1", "work", "@dispvm", "a.Allow+x", "SOCKET7")
    process = here.start("qrexec-policy-exec", *words)
    for asked, answer in (
        (b"admin.vm.CreateDisposable+ dom0 name mould\0", b"0\0disp7"),
        (b"admin.vm.Start+ dom0 name disp7\0", b"0\0"),
    ):
        asking = here.accept(qubesd)
        assert rest(asking) == asked
        asking.connection.sendall(answer)
        asking.connection.close()
    said, _ = process.communicate(timeout=TIMEOUT)
    assert said == b"-EWkd|disp7|-c|SOCKET7,work,1|--|DEFAULT:QUBESRPC a.Allow+x work|"
    words = (*policy, "1", "work", "other", "a.Allow", "SOCKET7")
    assert here.run("qrexec-policy-exec", *words)[:2] == (1, b"")
