"""The applications of a qube, as it tells of them (gui.md sections 12.1 and 12.2)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from insula.protocol.desktop_entries import ENTRY_GROUP, group_of
from insula.protocol.errors import ProtocolError

SUFFIX = ".desktop"
LONGEST_LINE = 1024  # characters
MAX_LINES = 100_000
MAX_APPLICATIONS = 2000
_LONGEST_ID = 128
_HIDDEN_CATEGORY = "Screensaver;"
_LINE = re.compile(
    rb"(?P<id>[A-Za-z0-9._-]+)\.desktop:(?P<key>[A-Za-z0-9-]+)=(?P<value>[ -~]*)", re.ASCII
)
_VALUES = {
    "Name": re.compile(r"[A-Za-z0-9/.,:&()_ +-]+", re.ASCII),
    "GenericName": re.compile(r"[A-Za-z0-9/.,:&()_ +-]+", re.ASCII),
    "Comment": re.compile(r"[A-Za-z0-9/.,:&()_ +-]+", re.ASCII),
    "StartupWMClass": re.compile(r"[A-Za-z0-9/_.-]+", re.ASCII),
    "Icon": re.compile(r"[A-Za-z0-9/_.-]+", re.ASCII),
    "Categories": re.compile(r"[A-Za-z0-9/.;:'() -]+", re.ASCII),
}
# Registered categories, those aside that are reserved for parts of desktops.
_REGISTERED = (
    "AudioVideo Audio Video Development Education Game Graphics Network Office Science Settings "
    "System Utility Building Debugger IDE GUIDesigner Profiling RevisionControl Translation "
    "Calendar ContactManagement Database Dictionary Chart Email Finance FlowChart PDA "
    "ProjectManagement Presentation Spreadsheet WordProcessor 2DGraphics VectorGraphics "
    "RasterGraphics 3DGraphics Scanning OCR Photography Publishing Viewer TextTools "
    "DesktopSettings HardwareSettings Printing PackageManager Dialup InstantMessaging Chat "
    "IRCClient Feed FileTransfer HamRadio News P2P RemoteAccess Telephony TelephonyTools "
    "VideoConference WebBrowser WebDevelopment Midi Mixer Sequencer Tuner TV AudioVideoEditing "
    "Player Recorder DiscBurning ActionGame AdventureGame ArcadeGame BoardGame BlocksGame "
    "CardGame KidsGame LogicGame RolePlaying Shooter Simulation SportsGame StrategyGame Art "
    "Construction Music Languages ArtificialIntelligence Astronomy Biology Chemistry "
    "ComputerScience DataVisualization Economy Electricity Geography Geology Geoscience History "
    "Humanities ImageProcessing Literature Maps Math NumericalAnalysis MedicalSoftware Physics "
    "Robotics Spirituality Sports ParallelComputing Amusement Archiving Compression Electronics "
    "Emulator Engineering FileTools FileManager TerminalEmulator Filesystem Monitor Security "
    "Accessibility Calculator Clock TextEditor Documentation Adult Core KDE GNOME XFCE DDE GTK Qt "
    "Motif Java ConsoleOnly "
)
_CATEGORIES = frozenset(_REGISTERED.split())


@dataclass(frozen=True, slots=True)
class Application:
    """One application. id: its desktop file's name without the suffix, what StartApp takes."""

    id: str
    name: str
    generic_name: str = ""
    comment: str = ""
    icon: str = ""
    categories: tuple[str, ...] = ()
    window_class: str = ""


def told_of(name: str, text: str) -> Iterator[str]:
    """The lines by which a qube tells of one of its desktop files; none of what it hides."""
    fields = group_of(text, ENTRY_GROUP)
    if fields.get("NoDisplay") == "true" or fields.get("Categories") == _HIDDEN_CATEGORY:
        return
    for key, value in fields.items():
        yield f"{name}:{key}={f'qubes-desktop-run {name}' if key == 'Exec' else value}"


def take_applications(untrusted: Iterable[bytes]) -> dict[str, Application]:
    """The applications that lines of a qube tell of, by their ids; what is not as it must be goes.

    Raises:
        ProtocolError: there are too many lines or applications.
    """
    found: dict[str, dict[str, str]] = {}
    for number, untrusted_line in enumerate(untrusted):
        if number >= MAX_LINES:
            raise ProtocolError(f"more than {MAX_LINES} lines")
        accepted = _accepted(untrusted_line)
        if accepted is None:
            continue
        name, key, value = accepted
        found.setdefault(name, {}).setdefault(key, value)
        if len(found) > MAX_APPLICATIONS:
            raise ProtocolError(f"more than {MAX_APPLICATIONS} applications")
    return {
        name: _application(name, fields)
        for name, fields in sorted(found.items())
        if "Name" in fields
    }


def _accepted(untrusted_line: bytes) -> tuple[str, str, str] | None:
    """Id, key and value of a line."""
    if len(untrusted_line) > LONGEST_LINE:
        return None
    parts = _LINE.fullmatch(untrusted_line.rstrip(b"\r\n"))
    if parts is None:
        return None
    name, key, value = (parts[group].decode("ascii") for group in ("id", "key", "value"))
    value = value.strip()
    allowed = _VALUES.get(key)
    if allowed is None or allowed.fullmatch(value) is None or len(name) > _LONGEST_ID:
        return None
    return name, key, value


def _application(name: str, fields: dict[str, str]) -> Application:
    categories = (one.strip() for one in fields.get("Categories", "").split(";"))
    return Application(
        id=name,
        name=fields["Name"],
        generic_name=fields.get("GenericName", ""),
        comment=fields.get("Comment", ""),
        icon=fields.get("Icon", ""),
        categories=tuple(dict.fromkeys(one for one in categories if one in _CATEGORIES)),
        window_class=fields.get("StartupWMClass", ""),
    )
