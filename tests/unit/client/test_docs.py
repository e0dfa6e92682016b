"""Pages of documentation: their examples do what they say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.client import App
from insula.tools import insula
from tests.live import Live, live
from tests.serving import user

PROJECT = Path(__file__).parents[3]
DOCS = PROJECT / "docs"
SERVICES = PROJECT / "src" / "insula" / "guest" / "files" / "qubes-rpc"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setenv("QREXEC_SERVICE_PATH", str(SERVICES))
    with live(tmp_path / "home", "debian-12") as served:
        monkeypatch.setenv("INSULA_RUN", str(served.instance.run))
        monkeypatch.setenv("INSULA_HOME", str(served.instance.home))
        yield served


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_client_do_what_they_say(
    served: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served
    App().domains["debian-12"].default_user = user()
    namespace: dict[str, object] = {}
    examples = blocks("client.md", "python")
    assert len(examples) > 8
    for example in examples:
        exec(compile(example, "docs/client.md", "exec"), namespace)
        told = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == told, example


def test_the_example_of_apply_does_what_it_says(
    served: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert served
    app = App()
    file = tmp_path / "system.toml"
    [description] = blocks("apply.md", "toml")
    file.write_text(description)
    [shown] = blocks("apply.md", "console")
    assert insula.main(["apply", "--plan", str(file)]) == 3
    assert capsys.readouterr().out == shown.partition("\n")[2]
    assert insula.main(["apply", str(file)]) == 0
    assert insula.main(["apply", "--plan", str(file)]) == 0
    assert app.domains["work"].netvm == "sys-firewall"
