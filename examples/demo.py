"""`make demo`: a conversation is killed in the middle, resumed elsewhere, continued, and audited.

Everything is real: the provider is a simulator in a process of its own, reached over HTTP and a
WebSocket on this machine; the agent runs in worker processes; the kill is a SIGKILL. Whatever is
claimed is proved from the database, from the bytes that the provider got, or from the file in which
the tools leave their effects. The demo ends with status 1 where anything is not so.

    python examples/demo.py            plays it, and keeps nothing
    python examples/demo.py FOLDER     keeps its files there

It needs turnlog with the extra `simulator`: the Python that `make setup` made has it.
"""

import argparse
import asyncio
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

import turnlog
from demo_parts.agent import effects
from demo_parts.audit import difference, forge_approval, full_size, timeline
from demo_parts.stage import (
    Provider,
    Unexpected,
    Workplace,
    console,
    expect,
    provider,
    scene,
    tell,
    until,
)
from demo_parts.worker import CONVERSATION
from turnlog import events as ev


async def main(folder: Path) -> None:
    """Play the six scenes."""
    async with asyncio.timeout(120), provider() as server:
        place = Workplace(folder / "demo.db", folder / "effects.jsonl", server.base_url)
        tell(f"A provider is simulated at [bold]{server.base_url}[/], in a process of its own.")
        tell(f"Everything that happens is recorded in {place.database}.")
        killed = await kill_in_the_second_tool(place)
        resumed = await resume_in_a_new_process(place)
        await continue_by_delta(place, server)
        await lose_the_websocket(place, server)
        await wait_for_approval(place)
        await audit(place, killed, resumed)


async def kill_in_the_second_tool(place: Workplace) -> int:
    """The first turn asks for two tools; its process dies inside the second one."""
    scene(1, "A turn with two tool calls, over a WebSocket")
    question = "Lamp 1042 arrived broken. What did I order? Please pay it back."
    tell(f"A customer writes: “{question}”")
    async with place.worker("say", question, BANK_HESITATES="60") as worker:
        await until(worker, lambda: bool(effects(place.effects, "refund")))
        expect(worker.returncode is None, "find_order has answered, and the bank was asked to pay")
        tell(f"[bold red]kill -9 {worker.pid}[/]: the bank was asked, and its answer is lost.")
        worker.send_signal(signal.SIGKILL)
        expect(await worker.wait() == -signal.SIGKILL, "the process died by SIGKILL")
    async with turnlog.open(str(place.database), readonly=True) as log:
        state = await (await log.get(CONVERSATION)).state()
    found = {call.name: call.status for call in state.pending}
    expect(found == {"refund": "started"}, "the log knows: refund was started, and did not answer")
    return state.version


async def resume_in_a_new_process(place: Workplace) -> int:
    """Another process settles what is left, and finishes the turn."""
    scene(2, "A new process recovers and resumes")
    tell('Nobody knows whether the bank paid. refund is declared [bold]on_crash="rerun"[/]:')
    tell("it may run again, and brings the same key, by which the bank knows it.")
    await place.run("recover")
    first, second = effects(place.effects, "find_order"), effects(place.effects, "refund")
    expect(len(first) == 1, "find_order, which had answered, did not run again")
    expect(len(second) == 2, "refund ran again, in another process")
    key = second[0]["key"]
    expect(second[1]["key"] == key, f"with the same idempotency key ({key[:18]}…)")
    async with turnlog.open(str(place.database), readonly=True) as log:
        chat = await log.get(CONVERSATION)
        state, items = await chat.state(), await chat.items()
    asked = [item for item in items if item.role == "user"]
    expect(state.status == "idle" and len(asked) == 1, "the turn is done, its question stands once")
    return state.version


async def continue_by_delta(place: Workplace, server: Provider) -> None:
    """The next turn sends what the provider lacks, and nothing else."""
    scene(3, "The next turn goes as a delta")
    await place.run("say", "When will I have it?")
    sent = (await server.heard())[-1]
    full = await full_size(place.database, sent["body"] or {})
    parent = (sent["body"] or {}).get("previous_response_id")
    expect(parent is not None, f"it continued from previous_response_id {parent}")
    size, saved = sent["size"], 1 - sent["size"] / full
    costs = f"[bold]{size:,} bytes[/] were sent; a full request would have cost {full:,}"
    expect(size < full, f"{costs} ([bold]{saved:.0%}[/] saved)")
    tell("A delta stays that small, however long the conversation grows.")


async def lose_the_websocket(place: Workplace, server: Provider) -> None:
    """The provider offers no WebSocket any more: the turn goes over HTTP."""
    scene(4, "The WebSocket is taken away")
    await server.take_websocket_away()
    await place.run("say", "And what do I do with the broken one?")
    switched = [one for one in await log_of(place) if isinstance(one, ev.TransportSwitched)]
    way = [(one.before, one.after) for one in switched]
    expect(way == [("websocket", "http")], "transport.switched: from websocket to http")
    tell(f"  [dim]{switched[0].reason}[/]")
    sent = (await server.heard())[-1]
    expect(sent["carrier"] == "http", "the turn went over HTTP, still as a delta")
    expect("previous_response_id" in (sent["body"] or {}), "from the same stored parent")


async def wait_for_approval(place: Workplace) -> None:
    """A call waits for a person, while no process runs."""
    scene(5, "A call waits for approval, and no process waits with it")
    await place.run("say", "That took a while. Is there something for my trouble?")
    expect(not effects(place.effects, "send_voucher"), "the process ended; no voucher was sent")
    tell("Somebody looks at the inbox later. [bold]ana[/] approves, in another process.")
    await place.run("approve")
    expect(len(effects(place.effects, "send_voucher")) == 1, "the voucher was sent, once")
    approved = [one for one in await log_of(place) if isinstance(one, ev.CallApproved)]
    expect(len(approved) == 1, "the approval is in the log, with who and why")


async def audit(place: Workplace, killed: int, resumed: int) -> None:
    """What an auditor reads, long after: everything is in one file."""
    scene(6, "What the log says")
    async with turnlog.open(str(place.database), readonly=True) as log:
        chat = await log.get(CONVERSATION)
        console.print(timeline(await chat.events()))
        tell(f"What the context gained between version {killed} (the kill) and {resumed}:")
        console.print(difference(await chat.diff(killed, resumed)))
        report = await log.verify()
        expect(report.ok, f"verified: {report.events} events, each bound to the one before it")
    forged = place.database.with_name("forged.db")
    forge_approval(place.database, forged)
    async with turnlog.open(str(forged), readonly=True) as log:
        report = await log.verify()
        expect(not report.ok, "in a copy that names another approver, verify finds it:")
        tell(f"  version {report.findings[0].version}: {report.findings[0].problem}")


async def log_of(place: Workplace) -> list[ev.Event]:
    """The events of the conversation, read as an auditor would."""
    async with turnlog.open(str(place.database), readonly=True) as log:
        return [one.event for one in await (await log.get(CONVERSATION)).events()]


def play(folder: Path) -> None:
    """Play it all, and end with status 1 where anything is not so, or 130 at Ctrl-C."""
    began = time.monotonic()
    try:
        asyncio.run(main(folder))
    except (Unexpected, TimeoutError) as problem:
        console.print(f"\n  [bold red]✗[/] {problem or 'not so: it ends within two minutes'}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    console.print(f"\n  All of it held, in {time.monotonic() - began:.1f} seconds.")


def usable(given: str) -> Path:
    """A folder without a demo, made where there is none; the workers run elsewhere."""
    folder = Path(given).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        sys.exit(f"error: {folder} cannot be used as a folder: {problem.strerror}")
    if (folder / "demo.db").exists():
        sys.exit(f"error: {folder} holds a demo already: name another folder")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A conversation is killed, resumed and audited.")
    parser.add_argument("folder", nargs="?", help="where its files are kept; a new one is made")
    if given := parser.parse_args().folder:
        play(usable(given))
    else:
        with tempfile.TemporaryDirectory(prefix="turnlog-demo-") as temporary:
            play(Path(temporary))
        again = shlex.join([sys.executable, sys.argv[0]])
        tell(f"To keep its files and look around: {again} FOLDER")
