"""Where the network's files of a qube lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """state: what is remembered until the qube ends. base_rules: there once they are loaded.

    services: a file for each that is on. config: of the qube's owner. resolved: there if
    systemd-resolved runs. connections: that NetworkManager knows.
    """

    state: Path = Path("/run/insula/network")
    base_rules: Path = Path("/run/insula/base-rules")
    services: Path = Path("/run/qubes-service")
    config: Path = Path("/rw/config")
    resolv_conf: Path = Path("/etc/resolv.conf")
    resolved: Path = Path("/run/systemd/resolve/resolv.conf")
    connections: Path = Path("/etc/NetworkManager/system-connections")
    nmcli: Path = Path("/usr/bin/nmcli")
    resolvectl: Path = Path("/usr/bin/resolvectl")

    def service(self, name: str) -> bool:
        """Whether a service of this qube is on."""
        return (self.services / name).exists()

    @property
    def redirection(self) -> Path:
        """The rules that send questions for names on, as they are in force."""
        return self.state / "dnat-dns.nft"
