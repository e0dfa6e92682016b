"""Carrying out a call that is allowed (qrexec-wire.md section 10.3)."""

import asyncio
import secrets
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass

from insula.daemon.lifecycle.passing import Passing
from insula.daemon.lifecycle.power import Power
from insula.daemon.lifecycle.running import RunningQube
from insula.daemon.lifecycle.world import World
from insula.daemon.model.qube import Qube
from insula.daemon.rpc.between import Party, connect
from insula.daemon.rpc.host_services import HostServices
from insula.daemon.rpc.ports import Direction
from insula.protocol.policy.answer import Answer
from insula.protocol.policy.evaluation import Request
from insula.protocol.policy.system import ADMIN
from insula.protocol.policy.tokens import DISPOSABLE_OF
from insula.protocol.resync import NONCE_SIZE


@dataclass(frozen=True, slots=True)
class Allowed:
    """A call that is allowed: whose it is, what it asks for, how it is carried out.

    request_id: by which the caller's agent knows it.
    """

    source: Qube
    running: RunningQube
    request: Request
    answer: Answer
    request_id: bytes

    @property
    def called(self) -> str:
        """The service that is called, with its argument."""
        return self.answer.service or f"{self.request.service}{self.request.argument}"


class CarryingOut:
    """Connects calls with what they are to reach."""

    def __init__(self, world: World, power: Power, passing: Passing, host: HostServices) -> None:
        self._world, self._power = world, power
        self._passing, self._host = passing, host
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, call: Allowed) -> None:
        """Connect a call. Returns once that is done.

        Raises:
            ReportableError: it cannot be.
        """
        if call.answer.target == ADMIN:
            await self._to_host(call)
        elif call.answer.target.startswith(DISPOSABLE_OF):
            await self._to_disposable(call)
        else:
            await self._to_qube(call, self._world.system.named(call.answer.target))

    async def close(self) -> None:
        """Stop looking after disposables; they go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _to_qube(self, call: Allowed, target: Qube) -> "asyncio.Event":
        """Returns what is set once the call is over, if the target lives that long."""
        callee = await self._power.ready(target, autostart=call.answer.autostart)
        source = call.answer.source or call.source.name
        opened = await connect(
            Party(call.running.xid, call.running.calls),
            Party(callee.xid, callee.calls),
            f"{call.answer.user}:QUBESRPC {call.called} {source}",
            call.request_id,
        )
        return opened.over

    async def _to_disposable(self, call: Allowed) -> None:
        template = self._world.system.named(call.answer.target.removeprefix(DISPOSABLE_OF))
        async with AsyncExitStack() as undo:
            target = await self._passing.take(template, call.source)
            undo.push_async_callback(self._passing.end, target)
            over = await self._to_qube(call, target)
            undo.pop_all()
        task = asyncio.create_task(self._end_after(target, over))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_after(self, target: Qube, over: asyncio.Event) -> None:
        """End a disposable with the call that it was made for."""
        running = self._world.running.get(target.uuid)
        if running is not None:
            waiting = [
                asyncio.create_task(over.wait()),
                asyncio.create_task(running.machine.wait_gone()),
            ]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
        await self._passing.end(target)

    async def _to_host(self, call: Allowed) -> None:
        kind, target = "name", call.answer.requested
        if target.startswith("@"):
            kind, target = "keyword", target.removeprefix("@")
        calls = call.running.calls
        opened = await calls.reserve(Direction.OUTGOING, 0)
        near, far = socket.socketpair()
        with near, far:
            try:
                nonce = secrets.token_bytes(NONCE_SIZE)
                await calls.join(opened, far.fileno())
                self._host.run(
                    f"{call.called} {call.source.name} {kind} {target}",
                    near,
                    nonce,
                    lambda: calls.other_over(opened),
                )
            except BaseException:
                await calls.abandon(opened)
                raise
        calls.accept(opened, nonce, call.request_id)
