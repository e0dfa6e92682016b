"""qvm-ls: formats, columns, order, tree and filters."""

import json

import pytest

from insula.tools import qvm_ls
from insula.tools.ls_columns import FORMATS
from tests.unit.tools.conftest import Run
from tests.unit.tools.fake_daemon import NONE, FakeDaemon, FakeQube, answer

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _qubes(daemon: FakeDaemon) -> None:
    daemon.add(
        FakeQube(
            "orchid",
            properties={
                "label": answer("green", "label"),
                "template": answer("debian", "vm"),
                "netvm": answer("river-fw", "vm", default=True),
                "ip": answer("10.137.0.5"),
                "vcpus": answer("2", "int", default=True),
                "virt_mode": answer("pvh", default=True),
                "autostart": answer("True", "bool"),
                "stubdom_mem": answer("", "int", default=True),
            },
            features={"servicevm": "1", "empty": "", "updates-available": "1"},
            tags={"mine"},
            volumes={
                "private": {
                    "pool": "p",
                    "vid": "v",
                    "size": str(2048 * MIB),
                    "usage": str(512 * MIB),
                },
                "root": {"pool": "q", "vid": "w", "size": str(100 * MIB), "usage": str(MIB - 1)},
            },
        )
    )
    daemon.add(
        FakeQube(
            "river-fw",
            state="Running",
            properties={
                "label": answer("red", "label"),
                "netvm": answer("River-net", "vm"),
                "gateway": answer("10.137.0.6"),
                "vcpus": answer("10", "int"),
                "provides_network": answer("True", "bool"),
                "virt_mode": answer("hvm"),
            },
        )
    )
    daemon.add(
        FakeQube("River-net", "DispVM", "Paused", {"netvm": NONE, "vcpus": answer("1", "int")})
    )


def test_the_simple_table(run: Run) -> None:
    assert run(qvm_ls.main).out.splitlines() == [
        "NAME       STATE    CLASS    LABEL  TEMPLATE  NETVM",
        "River-net  Paused   DispVM   -      -         -",
        "dom0       Running  AdminVM  -      -         -",
        "orchid     Halted   AppVM    green  debian    river-fw",
        "river-fw   Running  AppVM    red    -         River-net",
    ]


def test_chosen_fields_of_chosen_qubes(run: Run) -> None:
    words = ["--fields", "name,state,netvm", "--sort", "state", "orchid", "river-fw"]
    assert run(qvm_ls.main, *words).out == (
        "NAME      STATE    NETVM\norchid    Halted   river-fw\nriver-fw  Running  River-net\n"
    )


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["-n"], ["Halted", "river-fw", "10.137.0.5", "-", "10.137.0.6"]),
        (["-o", "prefs"], ["green", "debian", "river-fw", "2", "-", "-", "pvh"]),
        (["-o", "full"], ["Halted", "AppVM", "green", "-", "-", "-"]),
        (["-k"], ["Halted", "AppVM", "debian", "-", "-"]),
        (["-d"], ["Halted", "512", "512", "2048", "25%", "0", "100", "0%"]),
        (["-O", "NAME,priv_pool,ROOT-POOL,no_such,stubdom-mem"], ["p", "q", "-", "-"]),
        (["-O", "name,FLAGS"], ["a------A"]),
        (["-O", "name,memory"], ["-"]),
    ],
)
def test_columns(run: Run, words: list[str], cells: list[str]) -> None:
    heading, line = run(qvm_ls.main, *words, "orchid").out.splitlines()
    assert line.split() == ["orchid", *cells]
    assert len(heading.split()) == len(cells) + 1


def test_flags_and_memory_of_a_running_one(run: Run) -> None:
    done = run(qvm_ls.main, "-O", "flags,memory,disk,priv-max,priv-used", "river-fw", "River-net")
    assert [line.split() for line in done.out.splitlines()[1:]] == [
        ["Ar-N----", "200", "0", "0", "-"],
        ["dp------", "200", "0", "0", "-"],
    ]


def test_raw_data_has_no_heading_and_keeps_the_daemons_order(run: Run) -> None:
    done = run(qvm_ls.main, "--raw-data", "-O", "name,state", "--spinner")
    assert (done.out, done.err) == (
        "dom0|Running\norchid|Halted\nriver-fw|Running\nRiver-net|Paused\n", "",
    )  # fmt: skip
    assert (
        run(qvm_ls.main, "--raw-list", "--exclude", "r*", "--all").out
        == "dom0\norchid\nRiver-net\n"
    )


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ([], ["River-net", "dom0", "orchid", "river-fw"]),
        (["--ignore-case"], ["dom0", "orchid", "river-fw", "River-net"]),
        (["--reverse"], ["river-fw", "orchid", "dom0", "River-net"]),
        (["--sort", "vcpus"], ["dom0", "River-net", "orchid", "river-fw"]),
        (["--sort", "vcpus", "--reverse"], ["river-fw", "orchid", "River-net", "dom0"]),
        (["--sort", "label"], ["dom0", "orchid", "river-fw", "River-net"]),
    ],
)
def test_order(run: Run, words: list[str], order: list[str]) -> None:
    done = run(qvm_ls.main, *words, "-O", "name,vcpus")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == order


def test_a_tree_of_networks(daemon: FakeDaemon, run: Run) -> None:
    daemon.add(FakeQube("alone", properties={"netvm": NONE}))
    daemon.add(FakeQube("brook", properties={"provides_network": answer("True", "bool")}))
    daemon.add(FakeQube("violet", properties={"netvm": answer("river-fw", "vm")}))
    assert run(qvm_ls.main, "--tree", "-O", "name,netvm").out.splitlines() == [
        "NAME        NETVM",
        "alone       -",
        "dom0        -",
        "River-net   -",
        "└─river-fw  River-net",
        "  └─orchid  river-fw",
        "  └─violet  river-fw",
        "brook       -",
    ]
    shown = run(qvm_ls.main, "--tree", "-O", "name", "violet", "alone", "river-fw").out
    assert shown.splitlines() == ["NAME", "alone", "river-fw", "└─violet"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--class", "DispVM", "AdminVM"], "River-net dom0"),
        (["--label", "green", "blue"], "orchid"),
        (["--tags", "mine", "other"], "orchid"),
        (["--exclude-tags", "mine"], "River-net dom0 river-fw"),
        (["--running"], "dom0 river-fw"),
        (["--running", "--paused"], "River-net dom0 river-fw"),
        (["--halted"], "orchid"),
        (["--template-source", "debian"], "orchid"),
        (["--netvm-is", "River-net", "x"], "river-fw"),
        (["--servicevm", "y"], "orchid"),
        (["--servicevm", "no"], "River-net dom0 river-fw"),
        (["--internal", "yes"], ""),
        (["--pending-update"], "orchid"),
        (["--features", "servicevm=1", "empty=''"], "orchid"),
        (["--features", "servicevm="], "River-net dom0 river-fw"),
        (["--prefs", "vcpus=10"], "river-fw"),
        (["--prefs", "netvm=", "vcpus=1"], "River-net"),
        (["--prefs", "provides-network=True"], "river-fw"),
    ],
)
def test_filters(run: Run, words: list[str], found: str) -> None:
    done = run(qvm_ls.main, "-O", "name", *words)
    assert done.code == 0
    assert " ".join(done.out.split()[1:]) == found


@pytest.mark.parametrize(
    "words",
    [
        ["--features", "servicevm"], ["--prefs", "=1"], ["-o", "none"], ["-d", "-n"], ["-O", ","],
        ["--internal", "maybe"], ["no-such"], ["--exclude", "orchid"], ["--json", "--tree"],
    ],
)  # fmt: skip
def test_usage_errors(run: Run, words: list[str]) -> None:
    assert run(qvm_ls.main, *words).code == 2


def test_no_qubes_no_output(run: Run) -> None:
    done = run(qvm_ls.main, "x*")
    assert (done.code, done.out) == (0, "")


def test_the_spinner_prints_dots_where_there_is_no_terminal(run: Run) -> None:
    assert run(qvm_ls.main, "--spinner").err == "....\n"
    assert run(qvm_ls.main).err == ""


def test_formats_and_columns_are_explained(run: Run) -> None:
    assert [line.split()[0] for line in run(qvm_ls.main, "--help-formats").out.splitlines()] == [
        *FORMATS
    ]
    assert "PRIV-CURR" in run(qvm_ls.main, "--help-columns").out


def test_all_of_a_qube_is_asked_for_at_once(daemon: FakeDaemon, run: Run) -> None:
    run(qvm_ls.main)
    assert len(daemon.asked("admin.vm.List")) == 1
    assert len(daemon.asked("admin.vm.property.GetAll")) == 4
    assert len(daemon.requests) == 5


def test_rows_can_be_read_by_programs(run: Run) -> None:
    words = ["--json", "-O", "name,priv-max,PRIV_USED,template,gateway", "orchid", "River-net"]
    assert json.loads(run(qvm_ls.main, *words).out) == [
        {"name": "River-net", "priv_max": 0, "priv_used": None, "template": None, "gateway": None},
        {
            "name": "orchid",
            "priv_max": 2048,
            "priv_used": 25,
            "template": "debian",
            "gateway": "10.137.0.6",
        },
    ]
    assert json.loads(run(qvm_ls.main, "--json", "x*").out) == []


def test_volumes_are_asked_for_once(daemon: FakeDaemon, run: Run) -> None:
    run(qvm_ls.main, "-d", "orchid")
    assert len(daemon.asked("admin.vm.volume.List")) == 1
    assert len(daemon.asked("admin.vm.volume.Info")) == 2
