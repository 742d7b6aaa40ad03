"""A support bot behind FastAPI that streams to a page, which may reload or lose its connection.

    uvicorn --app-dir examples support_bot.app:app

The log owns each turn: it goes on when the page is gone, and the page that comes back attaches
behind the last thing that it saw. `BOT_DATABASE` names the database.

It needs `pip install fastapi uvicorn` beside turnlog; the environment of `make setup` has both.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel

import turnlog
from offline import provider
from support_bot.agent import answer, support
from turnlog.errors import NotFound, StateError, UsageError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open the log, and go on with what the last process left."""
    path = os.environ.get("BOT_DATABASE", "support.db")
    model = provider(*[answer] * 10_000)
    async with turnlog.open(path, agents=[support], transport=model) as log:
        app.state.log = log
        await log.recover()
        for row in await log.conversations(status="waiting"):
            if row.turn is not None:
                await (await (await log.get(row.id)).turn(row.turn)).resume()
        yield


app = FastAPI(lifespan=lifespan)


class Message(BaseModel):
    """What a customer says. The key makes it safe to send twice."""

    text: str
    key: str


async def conversation(request: Request, chat: str) -> turnlog.Conversation:
    """The conversation of a page."""
    log: turnlog.Log = request.app.state.log
    return await log.conversation(chat, agent=support)


@app.get("/")
async def page() -> FileResponse:
    """The page."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/chats/{chat}/messages", status_code=202)
async def send(request: Request, chat: str, message: Message) -> dict[str, str]:
    """Accept a message; it is durable when this answers, and runs whoever watches."""
    found = await conversation(request, chat)
    turn = await found.send(message.text, idempotency_key=message.key, by=f"customer:{chat}")
    return {"turn": turn.id}


@app.get("/chats/{chat}")
async def history(request: Request, chat: str) -> dict[str, object]:
    """What was said, and the cursor behind it: the answer of an open turn is left to `updates`."""
    found = await conversation(request, chat)
    try:
        state = await found.state()
    except NotFound:
        return {"messages": [], "cursor": str(turnlog.Cursor())}
    said = [item for item in await (await found.at(version=state.version)).items() if item.text]
    cursor = state.cursor
    if state.turn is not None:
        cursor = turnlog.Cursor((await found.turns(last=1))[0].started)
        while said and said[-1].role != "user":
            said.pop()
    messages = [{"role": item.role, "text": item.text} for item in said]
    return {"messages": messages, "cursor": str(cursor)}


@app.get("/chats/{chat}/updates")
async def updates(
    request: Request,
    chat: str,
    after: str,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """What came behind a cursor, and then comes; a browser that reconnects says where it was."""
    found = await conversation(request, chat)
    told = events(found.attach(after=last_event_id or after))
    return StreamingResponse(told, media_type="text/event-stream")


async def events(updates: AsyncIterable[turnlog.Update]) -> AsyncGenerator[str]:
    """Updates as server-sent events, whose ids are cursors."""
    async for update in updates:
        match update.type:
            case "text.delta":
                said = {"type": update.type, "text": update.delta}
            case "call.started":
                said = {"type": update.type, "text": update.name or ""}
            case "retracted" | "turn.done":
                said = {"type": update.type, "text": update.reason or ""}
            case _:
                continue
        yield f"id: {update.cursor}\ndata: {json.dumps(said)}\n\n"
    yield "event: idle\ndata: {}\n\n"


@app.exception_handler(StateError)
@app.exception_handler(UsageError)
async def refuse(request: Request, error: Exception) -> JSONResponse:
    """What a page can do about it stands in the message."""
    return JSONResponse({"error": str(error)}, 409 if isinstance(error, StateError) else 400)
