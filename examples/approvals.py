"""An agent that waits for approval in another process.

    python examples/approvals.py ask bank.db "Send 900 euros to Ben."
    python examples/approvals.py inbox bank.db
    python examples/approvals.py approve bank.db CALL --by ana
    python examples/approvals.py reject bank.db CALL --by ana --reason "Not to him."

No process runs between these. The turn waits in the database, for a minute or a year; whoever
decides needs the agent's tools only because the turn goes on at once. It needs turnlog only.
"""

import argparse
import asyncio
import sys

import turnlog
from offline import provider
from turnlog.testing import call, text


def is_large(amount: float) -> bool:
    """What nobody sends alone."""
    return amount >= 100


@turnlog.tool(needs_approval=is_large)
async def send_money(ctx: turnlog.ToolContext[None], to: str, amount: float) -> str:
    """Send money to somebody."""
    print(f"[the bank sends {amount:.2f} to {to}, once for {ctx.idempotency_key}]")
    return "sent"


agent = turnlog.Agent(
    "banker", model="gpt-5.5", instructions="Move money as asked.", tools=[send_money]
)


async def ask(database: str, words: str) -> None:
    """Send an input; the process ends, whether the turn is done or waits."""
    model = provider(call("send_money", to="Ben", amount=900.0), text("Done."))
    async with turnlog.open(database, agents=[agent], transport=model) as log:
        chat = await log.conversation("home-banking", agent=agent)
        result = await chat.run(words, by="customer")
        print(f"{result.status}: {result.output_text or ', '.join(result.pending)}")


async def inbox(database: str) -> None:
    """Every call that waits for somebody, of all conversations; needs no tool and no key."""
    async with turnlog.open(database, readonly=True) as log:
        for row in await log.pending():
            waiting = await (await log.get(row.conversation)).call(row.call)
            print(f"{row.call}  {row.conversation}: {row.name} {dict(waiting.arguments)}")


async def decide(database: str, wanted: str, by: str, reason: str | None, *, yes: bool) -> None:
    """Approve or reject a call, and let its turn go on."""
    model = provider(text("The money is on its way." if yes else "I did not send it."))
    async with turnlog.open(database, agents=[agent], transport=model) as log:
        waiting = await find(log, wanted)
        await (waiting.approve if yes else waiting.reject)(by=by, reason=reason)
        chat = await log.get(waiting.conversation)
        turn = await (await chat.turn(waiting.turn or "")).resume()
        result = await turn.result()
        print(f"{result.status}: {result.output_text}")


async def find(log: turnlog.Log, wanted: str) -> turnlog.Call:
    """The call of that id, among all that wait."""
    for row in await log.pending():
        if row.call == wanted:
            return await (await log.get(row.conversation)).call(row.call)
    raise SystemExit(f"no call {wanted} waits here")


def command_line() -> argparse.ArgumentParser:
    """What each verb asks for."""
    parser = argparse.ArgumentParser(description="An agent that waits for approval.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    asking = verbs.add_parser("ask", help="send an input")
    asking.add_argument("database")
    asking.add_argument("words", help="what is said")
    verbs.add_parser("inbox", help="list every call that waits").add_argument("database")
    for verb in ("approve", "reject"):
        deciding = verbs.add_parser(verb, help=f"{verb} a call, and let its turn go on")
        deciding.add_argument("database")
        deciding.add_argument("call", help="its id, which `inbox` lists")
        deciding.add_argument("--by", default="user", help="who decides")
        deciding.add_argument("--reason")
    return parser


async def main(given: argparse.Namespace) -> None:
    """Do what the command line says."""
    match given.verb:
        case "ask":
            await ask(given.database, given.words)
        case "inbox":
            await inbox(given.database)
        case verb:
            yes = verb == "approve"
            await decide(given.database, given.call, given.by, given.reason, yes=yes)


if __name__ == "__main__":
    try:
        asyncio.run(main(command_line().parse_args()))
    except turnlog.TurnlogError as problem:
        sys.exit(f"error: {problem}")
