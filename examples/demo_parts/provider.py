"""The provider of the demo: turnlog's simulator in a process of its own, told what to answer.

It prints its address, then takes commands on stdin, one a line: `websocket off`, and `heard`, which
prints the requests so far with their sizes, as JSON.
"""

import asyncio
import json
import sys

from turnlog.testing import Reply, call, calls, text
from turnlog_transports.simulator import Simulator


def said(value: str) -> Reply:
    """A text that streams at the pace of a fast reader."""
    return text(value).but(delay=0.02)


SCRIPT = [
    calls(
        call("find_order", order="1042"),
        call("refund", order="1042", amount=49.0),
    ),
    said("I am sorry about the lamp! 49.00 EUR are on their way back to you."),
    said("Within two working days, on the card that you paid with."),
    said("Please recycle it: any shop that sells lamps takes it back."),
    call("send_voucher", amount=25.0),
    said("A voucher of 25.00 EUR is in your mail. Thank you for your patience!"),
]


def answer(simulator: Simulator, command: str) -> None:
    """Do what a line on stdin asks for."""
    if command == "websocket off":
        simulator.websocket = False
    heard = [
        {"carrier": one.carrier, "method": one.method, "size": one.size, "body": one.body}
        for one in simulator.requests
    ]
    print(json.dumps(heard), flush=True)


async def main() -> None:
    """Serve until stdin closes, so that no simulator outlives its demo."""
    async with Simulator(SCRIPT) as simulator:
        print(simulator.base_url, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer(simulator, line.strip())


if __name__ == "__main__":
    asyncio.run(main())
