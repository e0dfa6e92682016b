"""qrexec-policy-exec and qrexec-policy-daemon, against a running instance (qrexec-wire.md 11)."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.serving import TIMEOUT, Instance, serving


@pytest_asyncio.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    async with serving(tmp_path / "home") as one:
        await one.template()
        for name in ("work", "vault"):
            await one.qube(name)
        rules = "test.A * work vault allow\ntest.B * work @anyvm ask\n"
        (one.home / "policy.d" / "30-user.policy").write_text(rules)
        yield one


def _environment(instance: Instance) -> dict[str, str]:
    return {**os.environ, "INSULA_HOME": str(instance.home), "INSULA_RUN": str(instance.run)}


async def _judged(instance: Instance, *words: str) -> tuple[int, list[str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "insula.dom0.policy_exec", *words),
        env=_environment(instance),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode().splitlines()


async def test_one_call_is_judged(instance: Instance) -> None:
    uuid = instance.system.named("vault").uuid
    assert await _judged(instance, "--", "work", "vault", "test.A+x") == (
        0,
        [
            "user=DEFAULT",
            "result=allow",
            "target=vault",
            f"target_uuid=uuid:{uuid}",
            "autostart=True",
            "requested_target=vault",
        ],
    )
    assert await _judged(instance, "vault", "work", "test.A") == (1, ["result=deny"])
    assert await _judged(instance, "--just-evaluate", "work", "vault", "test.A") == (0, [])
    assert await _judged(instance, "--just-evaluate", "work", "vault", "test.B") == (1, [])
    assumed = ("--just-evaluate", "--assume-yes-for-ask", "work", "vault", "test.B")
    assert await _judged(instance, *assumed) == (0, [])
    assert (await _judged(instance, "--assume-yes-for-ask", "work", "vault", "test.B"))[0] == 0
    assert (await _judged(instance, "work", "vault", "test.B"))[0] == 1


@asynccontextmanager
async def _daemon(instance: Instance) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "insula.dom0.policy_daemon"), env=_environment(instance)
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            while not (instance.run / "policy.EvalGUI").exists():
                assert process.returncode is None
                await asyncio.sleep(0.01)
        yield
    finally:
        process.kill()
        await process.wait()


async def _asked(instance: Instance, name: str, text: bytes) -> bytes:
    async with asyncio.timeout(TIMEOUT):
        for _ in range(100):
            try:
                reader, writer = await asyncio.open_unix_connection(instance.run / name)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
    return answer


async def test_a_daemon_is_told_what_becomes_of_a_call(instance: Instance) -> None:
    question = b"source=work\nrequested_source=\nintended_target=vault\nservice_and_arg=test.A+\n\n"
    async with _daemon(instance):
        answer = await _asked(instance, "policy.sock", question)
        assert answer.startswith(b"user=DEFAULT\nresult=allow\ntarget=vault\n")
        assert not answer.endswith(b"\n")
        (instance.home / "policy.d" / "30-user.policy").write_text("nonsense\n")
        assert await _asked(instance, "policy.sock", question) == b"result=deny"


@pytest.mark.parametrize(
    "text", [b"", b"source=a\n\n", b"x=1\n\n", b"source=\xff\n\n", b"source=a\nsource=a\n\n"]
)
async def test_what_is_no_question_gets_no_answer(instance: Instance, text: bytes) -> None:
    async with _daemon(instance):
        assert await _asked(instance, "policy.sock", text) == b""


async def test_a_call_that_would_be_allowed_is_told_as_such(instance: Instance) -> None:
    async with _daemon(instance):
        header = b"policy.EvalSimple+test.A dom0 name dom0\0"
        assert await _asked(instance, "policy.EvalSimple", header + b"work\0vault") == (
            b"result=allow\n"
        )
        assert await _asked(instance, "policy.EvalSimple", header + b"vault\0work") == (
            b"result=deny\n"
        )
        asked = header.replace(b"test.A", b"test.B")
        assert await _asked(instance, "policy.EvalSimple", asked + b"work\0vault") == (
            b"result=allow\n"
        )
        for bad in (b"work", b"\0vault", b"work\0va:ult", b"work\0" + b"v" * 64):
            assert await _asked(instance, "policy.EvalSimple", header + bad) == b""
        assert await _asked(instance, "policy.EvalGUI", header + b"work\0vault") == (
            b"result=allow\n"
        )
        another = b"policy.EvalGUI+test.A work name dom0\0"
        assert await _asked(instance, "policy.EvalGUI", another + b"work\0vault") == b""
