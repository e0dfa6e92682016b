"""Progress of a bootstrap, from the lines it prints."""

from hypothesis import given
from hypothesis import strategies as st

from insula.template.progress import BootstrapProgress

PACKAGES = ["Get:1 mirror bookworm/main a", "Unpacking a (1) ...", "Setting up a (1) ..."]
COUNT = "0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded."


def heard(lines: list[str]) -> list[tuple[str, float | None]]:
    reports: list[tuple[str, float | None]] = []
    progress = BootstrapProgress(lambda phase, part: reports.append((phase, part)))
    for line in lines:
        progress.hear(line)
    return reports


def test_each_phase_ends_at_its_whole() -> None:
    reports = heard(["I: running apt-get update...", COUNT, *PACKAGES, COUNT, *PACKAGES])
    assert [phase for phase, _ in reports] == ["base system"] * 3 + ["packages"] * 3
    assert [part for _, part in reports] == [1 / 3, 2 / 3, 1.0] * 2


@given(st.lists(st.sampled_from([COUNT, *PACKAGES, "else"])))
def test_a_part_is_never_over_the_whole_nor_goes_back_in_its_phase(lines: list[str]) -> None:
    cut = lines[: lines.index(COUNT) + 1] if COUNT in lines else lines
    rest = [line for line in lines[len(cut) :] if line != COUNT]
    parts = [part for _, part in heard(cut + rest)]
    assert parts == sorted(parts, key=lambda part: part or 0.0)
    assert all(part is not None and 0 < part <= 1 for part in parts)
