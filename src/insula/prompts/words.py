"""Services in words, and qubes as they are shown."""

from insula.protocol.policy_agent import Ask, Notify

_DOES = {
    "qubes.Filecopy": "copy files to another qube",
    "qubes.OpenInVM": "open a file in another qube",
    "qubes.OpenURL": "open an address in another qube",
    "qubes.ClipboardPaste": "put the clipboard's text into another qube",
    "qubes.VMShell": "run commands in another qube",
    "qubes.VMExec": "run a program in another qube",
    "qubes.VMExecGUI": "run a program with windows in another qube",
    "qubes.VMRootShell": "run commands as root in another qube",
    "qubes.VMRootExec": "run a program as root in another qube",
    "qubes.StartApp": "start an application in another qube",
    "qubes.ConnectTCP": "connect to a port of another qube",
    "qubes.UpdatesProxy": "reach servers with software, by another qube",
    "qubes.GetImageRGBA": "have a picture turned into pixels",
    "qubes.PdfConvert": "have a document turned into pixels",
    "qubes.Gpg": "use keys of another qube",
    "qubes.Gpg2": "use keys of another qube",
    "qubes.SshAgent": "use SSH keys of another qube",
    "qubes.ShowInTerminal": "show something in a terminal of another qube",
}
_DISPOSABLE = "@dispvm:"
_LONGEST = 120  # characters of an argument that are shown
_RESOLVED = {"allow": "was allowed to", "deny": "was not allowed to", "fail": "failed to"}


def does(service: str) -> str:
    """What a service is for; of one that nobody here knows, its name."""
    return _DOES.get(service, f"call the service {service}")


def shown_argument(argument: str) -> str:
    """A call's argument without its plus; empty when there is none."""
    text = argument.removeprefix("+")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def shown_target(target: str) -> str:
    """A target as it is listed."""
    if target.startswith(_DISPOSABLE):
        return f"Disposable VM ({target.removeprefix(_DISPOSABLE)})"
    return target


def question(ask: Ask) -> str:
    """One sentence."""
    return f"{ask.source} wants to {does(ask.service)}"


def notice(told: Notify) -> str:
    """One sentence."""
    what = f"{told.source} {_RESOLVED[told.resolution]} {does(told.service)}"
    return f"{what}: {shown_target(told.target)}"
