"""google-adk's `DatabaseSessionService`: an event for each item, each of them a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.schemas.v1 import StorageEvent
from google.adk.sessions.session import Session
from google.genai.types import Content, FunctionCall, FunctionResponse, Part
from sqlalchemy.exc import OperationalError

from .. import storing
from ..storing import Store, named_modes
from ..subject import Given, Item, Measured, versions

APP, USER = "bench", "user"
MOST_AT_ONCE = 500


def event_of(item: Item) -> Event:
    """An item as an event, as ADK's own flows make them."""
    match item.get("type"):
        case "function_call":
            arguments = json.loads(item["arguments"])
            call = FunctionCall(id=item["call_id"], name=item["name"], args=arguments)
            author, content = "agent", Content(role="model", parts=[Part(function_call=call)])
        case "function_call_output":
            answer = FunctionResponse(
                id=item["call_id"], name="look_up", response={"result": item["output"]}
            )
            author, content = "agent", Content(role="user", parts=[Part(function_response=answer)])
        case "message":
            text = item["content"][0]["text"]
            author, content = "agent", Content(role="model", parts=[Part(text=text)])
        case _:
            author, content = "user", Content(role="user", parts=[Part(text=item["content"])])
    return Event(author=author, invocation_id="e-bench", content=content)


class Adk(Store):
    """Session objects that stay in memory, as a runner holds them."""

    rows = "events"

    def __init__(
        self,
        path: Path,
        service: DatabaseSessionService,
        sessions: list[Session],
        facts: dict[str, str],
    ) -> None:
        super().__init__(path)
        self._service = service
        self._sessions = sessions
        self._again = 0
        self.facts = facts

    async def add(self, conversation: int, items: list[Item]) -> None:
        session = self._sessions[conversation]
        for item in items:
            while not await self._appended(session, event_of(item)):
                self._again += 1
                self.facts["tried again where the file was locked"] = str(self._again)

    async def _appended(self, session: Session, event: Event) -> bool:
        """Whether it was: with the service's own pool its writers wait in vain for each other."""
        try:
            await self._service.append_event(session, event)
        except OperationalError as problem:
            if "locked" not in str(problem):
                raise
            return False
        return True

    async def fill(self, items: list[Item], conversation: int = 0) -> None:
        """Put rows in, as the service makes them, in one transaction: it has no such call."""
        session = self._sessions[conversation]
        async with self._service.database_session_factory() as rows:
            rows.add_all([StorageEvent.from_event(session, event_of(item)) for item in items])
            await rows.commit()
        if conversation == 0:
            self._sessions[0] = await self._get(None)

    async def read(self, limit: int | None) -> int:
        return len((await self._get(limit)).events)

    async def _get(self, limit: int | None) -> Session:
        config = GetSessionConfig(num_recent_events=limit)
        found = await self._service.get_session(
            app_name=APP, user_id=USER, session_id=self._sessions[0].id, config=config
        )
        assert found is not None
        return found


@asynccontextmanager
async def opened(path: Path, conversations: int) -> AsyncGenerator[Store]:
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{path}") as service:
        sessions = [
            await service.create_session(app_name=APP, user_id=USER, session_id=f"talk-{number}")
            for number in range(conversations)
        ]
        yield Adk(path, service, sessions, await facts_of(service))


async def facts_of(service: DatabaseSessionService) -> dict[str, str]:
    """What the connections of its engine are set to."""
    async with service.db_engine.connect() as connection:
        journal = (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one()
        synchronous = (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one()
    found = named_modes(journal, synchronous) | versions("google-adk", "sqlalchemy", "aiosqlite")
    return found | {"sqlite": sqlite3.sqlite_version}


turns = partial(storing.turns, opened)
items = partial(storing.items, opened)
length = partial(storing.length, opened)
last = partial(storing.last, opened)
load = partial(storing.load, opened)


async def many(given: Given) -> Measured:
    """As with the others, but fewer turns: each takes tens of milliseconds."""
    fewer = min(given.number("turns"), MOST_AT_ONCE)
    found = await storing.many(
        opened, replace(given, parameters={**given.parameters, "turns": fewer})
    )
    found.facts["turns"] = str(fewer)
    return found
