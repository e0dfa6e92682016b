"""Split GPG and split SSH: keys stay in the qube that has them, others have them used."""

from collections.abc import Iterator

import pytest

from tests.vm.instance import Instance

VAULT, USER = "keeps-keys", "has-none"
_POLICY = f"qubes.Gpg2 * {USER} @default allow target={VAULT}\n"
_SSH_POLICY = f"qubes.SshAgent * {USER} @default allow target={VAULT}\n"
_GENERATE = (
    "gpg --batch --quiet --passphrase '' --quick-gen-key kept@insula.test future-default",
    "gpg --batch --armor --export kept@insula.test > public.asc",
    "mkdir -p -m 700 .ssh",
    "ssh-keygen -q -t ed25519 -N '' -C kept -f .ssh/id_ed25519",
)


@pytest.fixture(scope="module", autouse=True)
def pair(instance: Instance) -> Iterator[None]:
    """A qube with keys, and one that is to use them."""
    policy = instance.home / "policy.d" / "30-user.policy"
    before = policy.read_bytes()
    policy.write_text(_POLICY + _SSH_POLICY)
    for name, label in ((VAULT, "black"), (USER, "yellow")):
        instance.say("qvm-create", "--label", label, name)
    for service in ("split-gpg2-client", "split-ssh-client"):
        instance.say("qvm-service", USER, service, "on")
    instance.say("qvm-run", VAULT, " && ".join(_GENERATE))
    public = instance.say("qvm-run", "-p", VAULT, "cat public.asc")
    instance.say("qvm-run", "-p", USER, "gpg --batch --import 2>&1", given=public.encode())
    yield
    policy.write_bytes(before)
    for name in (VAULT, USER):
        instance.command("qvm-kill", name)
        instance.remove(name)


def test_another_qube_signs_and_decrypts(instance: Instance) -> None:
    said = instance.say(
        "qvm-run",
        "-p",
        USER,
        "echo words > plain && gpg --batch --yes --detach-sign plain && "
        "gpg --batch --verify plain.sig plain 2>&1 | grep -c 'Good signature'; "
        "gpg --batch --yes --trust-model always -r kept@insula.test -e plain && rm plain && "
        "gpg --batch --quiet -d plain.gpg",
    )
    assert said == "1\nwords\n"


def test_the_key_itself_stays(instance: Instance) -> None:
    said = instance.say(
        "qvm-run",
        "-p",
        USER,
        "gpg --batch --pinentry-mode loopback --passphrase '' --export-secret-keys | wc -c; "
        "ls .gnupg/private-keys-v1.d 2>/dev/null | wc -l",
    )
    assert said == "0\n0\n"


def test_another_qube_logs_in_with_a_key(instance: Instance) -> None:
    """No server is needed: a signature by the agent is what a login consists of."""
    said = instance.say(
        "qvm-run",
        "-p",
        USER,
        "ssh-add -L | cut -d' ' -f3; ssh-add -L > key.pub; echo words > letter; "
        "ssh-keygen -q -Y sign -f key.pub -n file letter && "
        '(echo "me $(cat key.pub)") > allowed && '
        "ssh-keygen -Y verify -f allowed -I me -n file -s letter.sig < letter | cut -c1-4; "
        "ssh-add -D 2>&1 | head -1; ssh-add -L | wc -l",
    )
    lines = said.splitlines()
    assert lines[:2] == ["kept", "Good"]
    assert "Failed" in lines[2]
    assert lines[3] == "1"


def test_without_a_rule_the_key_is_out_of_reach(instance: Instance) -> None:
    policy = instance.home / "policy.d" / "30-user.policy"
    policy.write_text(f"* * {USER} @anyvm deny\n")
    try:
        said = instance.say("qvm-run", "-p", USER, "ssh-add -L 2>&1; echo $?").splitlines()
        assert said[-1] != "0"
    finally:
        policy.write_text(_POLICY + _SSH_POLICY)
