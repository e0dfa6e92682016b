"""What a policy daemon is asked and answers: any bytes are a question, an answer, or a mistake."""

from contextlib import suppress
from dataclasses import replace

from insula.protocol.errors import ProtocolError
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.wire import Question, is_new_name, parse_answer
from tests.fuzz.spelling import spelled

_QUESTION = (
    b"source=", b"intended_target=", b"service_and_arg=", b"requested_source=", b"yes", b"no",
    b"assume_yes_for_ask=", b"just_evaluate=",
    b"source=a\nintended_target=b\nservice_and_arg=c+d",
)  # fmt: skip
_ANSWER = (
    b"result=allow", b"result=deny", b"user=", b"target=", b"requested_target=", b"autostart=True",
    b"autostart=False", b"target_uuid=", b"service=", b"policy_source=",
    b"result=allow\nuser=u\ntarget=t\nrequested_target=r\nautostart=True",
)  # fmt: skip


def fuzz(data: bytes) -> None:
    """One input: a question, an answer, and a name, as they are and spelled in words."""
    _check(data)
    _check(spelled(data, _QUESTION))
    _check(spelled(data, _ANSWER))
    name = data.decode("ascii", "replace")
    assert not is_new_name(name) or ("/" not in name and len(name) == 41)


def _check(data: bytes) -> None:
    """What is understood reads the same again."""
    with suppress(ProtocolError):
        question = Question.decode(data)
        plain = replace(question, assume_yes=False, just_evaluate=False)
        assert Question.decode(question.encode().removesuffix(b"\n")) == plain
    with suppress(ProtocolError):
        answer = parse_answer(data)
        assert b"\0" not in data
        if answer is None:
            assert b"result=deny" in data
        else:
            assert parse_answer(_lines(answer)) == answer


def _lines(answer: Answer) -> bytes:
    further = {
        "target_uuid": answer.uuid,
        "service": answer.service,
        "policy_source": answer.source,
    }
    lines = [
        f"user={answer.user}",
        "result=allow",
        f"target={answer.target}",
        f"autostart={answer.autostart}",
        f"requested_target={answer.requested}",
        *(f"{key}={value}" for key, value in further.items() if value is not None),
    ]
    return "\n".join(lines).encode()
