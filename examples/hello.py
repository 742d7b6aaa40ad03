"""The smallest agent: a tool, a question, the answer, and what the log holds of it."""

import asyncio

import turnlog
from turnlog.testing import call, scripted, text


@turnlog.tool
def order_status(order: str) -> str:
    """Look up where an order is."""
    return f"Order {order} left the warehouse on Monday."


support = turnlog.Agent("support", model="gpt-5.5", instructions="Be brief.", tools=[order_status])
# What a provider would answer. Without transport=, it is asked, with the key in OPENAI_API_KEY.
replies = scripted([call("order_status", order="42"), text("It left on Monday.")])


async def main() -> None:
    async with turnlog.open("agent.db", agents=[support], transport=replies) as log:
        chat = await log.conversation("customer-7", agent=support)
        result = await chat.run("Where is order 42?")
        print(result.output_text)
        for event in await chat.events():
            print(event.version, event.tag, event.actor)
        print("verified:", (await log.verify()).ok)


asyncio.run(main())
