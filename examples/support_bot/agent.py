"""The agent of the bot, and what answers for the model where there is no key."""

import asyncio
import re

import turnlog
from turnlog.canonical import JsonObject, objects, text
from turnlog.items import output_text, type_of
from turnlog.testing import Reply
from turnlog.testing import call as call_reply
from turnlog.testing import text as text_reply


@turnlog.tool(on_crash="rerun")
async def order_status(order: str) -> str:
    """Look up where an order is."""
    await asyncio.sleep(0.5)
    return f"Order {order} left the warehouse on Monday and arrives on Thursday."


support = turnlog.Agent(
    "support",
    model="gpt-5.5",
    instructions="You help the customers of a lamp shop. Be kind, and be brief.",
    tools=[order_status],
)


def answer(request: JsonObject) -> Reply:
    """A model of sorts: it looks up what sounds like an order, and is polite about the rest."""
    last = objects(request, "input")[-1]
    if type_of(last) == "function_call_output":
        said = f"Thank you for waiting. {text(last, 'output')} Is there anything else I can do?"
        return text_reply(said).but(delay=0.04)
    order = re.search(r"\d+", output_text(last))
    if order is not None:
        return call_reply("order_status", order=order[0])
    said = "Good to hear from you! Tell me the number of your order, and I will look where it is."
    return text_reply(said).but(delay=0.04)
