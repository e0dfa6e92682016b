"""Calls from one running qube to another: real agents, real ports, the instance's policy."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.vm.instance import Instance, wait_for

REFUSED = 126
_SHOUT = (
    "mkdir -p /usr/local/etc/qubes-rpc && cd /usr/local/etc/qubes-rpc && "
    "printf '#!/bin/sh\\ntr a-z A-Z; echo $QREXEC_REMOTE_DOMAIN $1 >&2; exit 7\\n' > test.Shout && "
    "printf '#!/bin/sh\\nexec cat\\n' > test.Echo && chmod 755 test.Shout test.Echo"
)


@pytest.fixture(scope="module")
def policy(instance: Instance) -> Path:
    """The person's own rules, which are tried first."""
    return instance.home / "policy.d" / "30-user.policy"


@pytest.fixture(scope="module", autouse=True)
def pair(instance: Instance, policy: Path) -> Iterator[None]:
    """A qube that calls, and one that has services."""
    before = policy.read_bytes()
    for name in ("caller", "callee"):
        instance.say("qvm-create", "--label", "blue", name)
    instance.say("qvm-run", "-u", "root", "callee", _SHOUT)
    yield
    policy.write_bytes(before)
    for name in ("caller", "callee"):
        instance.command("qvm-kill", name)
        instance.remove(name)


def test_a_qube_calls_another_as_the_policy_allows(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Shout * caller callee allow\n")
    call = "printf hello | qrexec-client-vm callee test.Shout+now; echo $?"
    assert instance.say("qvm-run", "-p", "caller", call) == "HELLO7\n"
    policy.write_text("")
    assert instance.say("qvm-run", "-p", "caller", call) == f"{REFUSED}\n"


def test_much_data_goes_there_and_back_unchanged(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Echo * caller callee allow\n")
    said = instance.say(
        "qvm-run",
        "-p",
        "caller",
        "head -c 20000000 /dev/urandom > sent; "
        "qrexec-client-vm callee test.Echo < sent > got; echo $?; cmp sent got && echo same",
    )
    assert said == "0\nsame\n"


def test_many_calls_at_once_are_all_answered(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Echo * caller callee allow\n")
    said = instance.say(
        "qvm-run",
        "-p",
        "caller",
        "for n in $(seq 12); do echo $n | qrexec-client-vm callee test.Echo & done; wait",
    )
    assert sorted(map(int, said.split())) == list(range(1, 13))


def test_a_program_is_connected_with_a_service(instance: Instance, policy: Path) -> None:
    policy.write_text("test.Echo * caller callee allow\n")
    program = "echo up; read line; echo $line >&$SAVED_FD_1; exit 3"
    call = f"qrexec-client-vm callee test.Echo /bin/bash -c '{program}'; echo $?"
    assert instance.say("qvm-run", "-p", "caller", call) == "up\n3\n"


def test_dom0_tells_the_time_and_little_else(instance: Instance) -> None:
    said = instance.say(
        "qvm-run",
        "-p",
        "caller",
        "qrexec-client-vm @default qubes.GetDate; qrexec-client-vm dom0 admin.vm.List; echo $?",
    )
    date, refused = said.split()
    assert date.endswith("+00:00")
    assert refused == str(REFUSED)


def test_a_disposable_serves_one_call(instance: Instance) -> None:
    instance.say("qvm-create", "--label", "red", "mould")
    try:
        instance.say("qvm-prefs", "mould", "template_for_dispvms", "True")
        instance.say("qvm-prefs", "caller", "default_dispvm", "mould")
        before = instance.say("qvm-ls", "--raw-list")
        call = "echo 'hostname; exit 5' | qrexec-client-vm @dispvm qubes.VMShell; echo $?"
        name, code = instance.say("qvm-run", "-p", "caller", call).split()
        assert name.startswith("disp")
        assert code == "5"
        wait_for(lambda: instance.say("qvm-ls", "--raw-list") == before, "its end")
    finally:
        instance.say("qvm-prefs", "--default", "caller", "default_dispvm")
        instance.remove("mould")


def test_files_are_copied_and_moved(instance: Instance, policy: Path) -> None:
    policy.write_text("qubes.Filecopy * caller callee allow\n")
    made = (
        "mkdir -p tree/below && head -c 3000000 /dev/urandom > tree/big && "
        "printf '#!/bin/sh\\n' > tree/below/run && chmod 700 tree/below/run && "
        "ln -s run tree/below/link && echo x > moved && sha256sum < tree/big && "
        "qvm-copy-to-vm callee tree && qvm-move-to-vm callee moved && ls"
    )
    digest, *left = instance.say("qvm-run", "-p", "caller", made).splitlines()
    assert "moved" not in left
    there = (
        "cd QubesIncoming/caller && sha256sum < tree/big && cat moved && "
        "stat -c %a tree/below/run && readlink tree/below/link"
    )
    said = instance.say("qvm-run", "-p", "callee", there)
    assert said.splitlines() == [digest, "x", "700", "run"]
    again = "qvm-copy-to-vm callee tree 2>&1; echo $?"
    said = instance.say("qvm-run", "-p", "caller", again)
    assert "already exists in the incoming directory" in said
    assert said.endswith("\n17\n")


def test_a_command_is_run_in_another_qube(instance: Instance, policy: Path) -> None:
    policy.write_text("qubes.VMShell * caller callee allow\n")
    run = 'qvm-run-vm --no-gui callee "echo it\\\'s \\$(hostname)" < /dev/null'
    assert instance.say("qvm-run", "-p", "caller", run) == "it's callee\n"


def test_a_port_leads_to_a_port_of_another_qube(instance: Instance, policy: Path) -> None:
    policy.write_text("qubes.ConnectTCP +7777 caller callee allow\n")
    serve = (
        "python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 7777)); "
        "print('up', flush=True); c = s.accept()[0]; c.sendall(c.recv(9).upper())\""
    )
    with instance.running("qvm-run", "-p", "callee", serve) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"up\n"
        ask = (
            "qvm-connect-tcp 8888:callee:7777 > /dev/null 2>&1 < /dev/null && "
            "python3 -c \"import socket; c = socket.create_connection(('127.0.0.1', 8888)); "
            "c.sendall(b'hello'); print(c.recv(9).decode())\""
        )
        assert instance.say("qvm-run", "-p", "caller", ask) == "HELLO\n"


def test_the_clock_is_set_by_dom0s(instance: Instance) -> None:
    wrong = "date -s 2030-01-01 > /dev/null && qvm-sync-clock && date +%Y"
    year = instance.say("qvm-run", "-p", "-u", "root", "caller", wrong)
    assert year.strip() == str(datetime.now(UTC).year)


def test_applications_are_listed_and_started(instance: Instance) -> None:
    own = "mkdir -p .local/share/applications && cd .local/share/applications"
    entry = r"printf '[Desktop Entry]\nName=Own\nExec=xterm -x\n' > own.desktop"
    instance.say("qvm-run", "-p", "callee", f"{own} && {entry}")
    said = instance.say("qvm-run", "-p", "--service", "callee", "qubes.GetAppmenus")
    assert "own.desktop:Exec=qubes-desktop-run own.desktop" in said
    assert "mousepad" not in said  # That is its template's to tell.


def test_a_running_qube_reads_what_it_is_told(instance: Instance) -> None:
    read = "qubesdb-read -w /vm-config/colour"
    with instance.running("qvm-run", "-p", "caller", read) as reading:
        instance.say("qvm-features", "caller", "vm-config.colour", "mauve")
        assert reading.stdout is not None
        assert reading.stdout.readline() == b"mauve\n"
    assert instance.say("qvm-run", "-p", "caller", "qubesdb-read /name") == "caller\n"


def test_documents_and_pictures_are_made_anew_in_a_disposable(
    instance: Instance, policy: Path
) -> None:
    policy.write_text("qubes.PdfConvert * @anyvm @dispvm allow\n")
    instance.say("qvm-create", "--label", "red", "mould")
    try:
        instance.say("qvm-prefs", "mould", "template_for_dispvms", "True")
        instance.say("qvm-prefs", "caller", "default_dispvm", "mould")
        draw = (
            "python3 -c \"from PIL import Image; a = Image.new('RGB', (200, 100), 'red'); "
            "a.save('in.png'); a.save('in.pdf', save_all=True, append_images=[a])\" && "
            "qvm-convert-img in.png out.png && qvm-convert-pdf in.pdf 2> /dev/null && "
            "python3 -c \"from PIL import Image; a = Image.open('out.png'); "
            'print(a.getpixel((5, 5)))" && '
            "pdfinfo in.trusted.pdf | grep Pages && ls QubesUntrustedPDFs"
        )
        said = instance.say("qvm-run", "-p", "caller", draw).split("\n")
        assert said[0] == "(255, 0, 0, 255)"
        assert said[1].split() == ["Pages:", "2"]
        assert said[2] == "in.pdf"
    finally:
        instance.say("qvm-prefs", "--default", "caller", "default_dispvm")
        instance.remove("mould")


def test_dom0_copies_files_to_a_qube(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of dom0")
    instance.say("qvm-copy-to-vm", "callee", str(tmp_path / "file"))
    assert instance.say("qvm-run", "-p", "callee", "cat QubesIncoming/dom0/file") == "of dom0"


def test_a_qube_asks_for_features(instance: Instance) -> None:
    ask = "qvm-features-request qrexec=1 --commit; qubesdb-read /features-request/qrexec"
    assert instance.say("qvm-run", "-p", "caller", ask) == "1\n"
    assert instance.command("qvm-run", "-p", "caller", "qvm-features-request").returncode
