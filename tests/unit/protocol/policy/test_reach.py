"""What a qube that was taken over could reach."""

from hypothesis import given
from hypothesis import strategies as st

from insula.protocol.policy.policy import Policy
from insula.protocol.policy.reach import Relations, chain, steps_from
from insula.protocol.policy.rules import Rule, lines_of, parse_line
from insula.protocol.policy.system import QubeInfo, SystemInfo
from insula.tools.policy.picture import draw

SYSTEM = SystemInfo(
    [
        QubeInfo(name="dom0", klass="AdminVM"),
        *(
            QubeInfo(name=name, klass="AppVM", guivm="dom0", default_dispvm="mould")
            for name in ("work", "vault", "bank", "sys-net")
        ),
        QubeInfo(name="mould", klass="AppVM", template_for_dispvms=True),
        QubeInfo(name="tree", klass="TemplateVM"),
    ]
)
RELATIONS = Relations(
    templates={"work": "tree", "bank": "tree"}, netvms={"work": "sys-net"}, devices={}
)


def policy(text: str) -> Policy:
    parsed = (parse_line("f", number, line) for number, line in lines_of(text))
    return Policy([one for one in parsed if isinstance(one, Rule)])


def reached(text: str, source: str) -> set[tuple[str, str, bool]]:
    steps = steps_from(policy(text), SYSTEM, RELATIONS, source)
    return {(one.target, one.called or one.how, one.asked) for one in steps}


def test_calls_lead_where_the_policy_sends_them() -> None:
    text = (
        "a.A * work vault allow\n"
        "a.B +x work @default allow target=bank\n"
        "a.C * work @dispvm allow\n"
        "a.D * work bank ask\n"
        "a.A * work bank deny\n"
    )
    assert reached(text, "work") == {
        ("vault", "a.A", False),
        ("bank", "a.B+x", False),
        ("@dispvm:mould", "a.C", False),
        ("bank", "a.D", True),
    }


def test_a_template_is_in_all_that_are_made_from_it() -> None:
    assert reached("", "tree") == {("work", "template", False), ("bank", "template", False)}
    assert reached("", "sys-net") == {("work", "network", False)}


def test_the_admin_api_leads_to_the_qube_that_it_acts_on() -> None:
    text = "admin.vm.Start * work vault allow target=dom0\nqubes.GetDate * work dom0 allow\n"
    assert reached(text, "work") == {
        ("vault", "admin.vm.Start", False),
        ("dom0", "qubes.GetDate", False),
    }


def test_the_chain_with_the_fewest_confirmations_is_found() -> None:
    text = "a.Ask * work vault ask\na.Free * work bank allow\na.Free * bank vault allow\n"
    found = chain(policy(text), SYSTEM, RELATIONS, "sys-net", "vault")
    assert found is not None
    assert [(one.source, one.target) for one in found] == [
        ("sys-net", "work"),
        ("work", "bank"),
        ("bank", "vault"),
    ]
    assert chain(policy(text), SYSTEM, RELATIONS, "vault", "work") is None


def test_dom0_is_no_way_on() -> None:
    text = "q.Q * work dom0 allow\na.A * dom0 vault allow\n"
    assert chain(policy(text), SYSTEM, RELATIONS, "work", "vault") is None


_LINES = st.lists(
    st.builds(
        "a.{} * {} {} {}".format,
        st.sampled_from("AB"),
        st.sampled_from(["work", "vault", "bank", "@anyvm"]),
        st.sampled_from(["work", "vault", "bank", "@anyvm", "@dispvm"]),
        st.sampled_from(["allow", "deny", "ask"]),
    ),
    max_size=8,
)


@given(_LINES)
def test_a_chain_is_made_of_steps_that_hold(lines: list[str]) -> None:
    rules = policy("\n".join(lines))
    found = chain(rules, SYSTEM, RELATIONS, "sys-net", "vault")
    if found is None:
        return
    here = "sys-net"
    for step in found:
        assert step.source == here
        assert step in steps_from(rules, SYSTEM, RELATIONS, here)
        here = step.target
    assert here == "vault"


@given(_LINES)
def test_any_of_it_can_be_drawn(lines: list[str]) -> None:
    steps = steps_from(policy("\n".join(lines)), SYSTEM, RELATIONS, "work")
    assert draw("work", steps).startswith("<svg")
