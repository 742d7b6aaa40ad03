"""A database with everything in it, and ways to damage a copy of it."""

from __future__ import annotations

from turnlog import events as ev
from turnlog.ports import Store
from turnlog.testing.store_contract import Author, added, answered, begun, called, prepared

PAGE = 4096
LARGE = "A" * 3000 + "B" * 20_000


async def story(store: Store, *, chats: int = 12, turns: int = 4) -> dict[str, int]:
    """Conversations with turns, calls, blobs, edits, a lease and a fork; and their versions."""
    authors: list[Author] = []
    for number in range(chats):
        author = Author(f"chat-{number:02}")
        authors.append(author)
        await store.append(author.begin(team="red", number=str(number)))
        for turn in range(turns):
            name = f"{author.id}-t{turn}"
            mark = f"{number}.{turn}"
            await store.append(
                author.write(begun(name), added(f"in-{mark}"), prepared(mark), turn=name)
            )
            await store.append(author.write(*called(mark, f"x{mark}", f"y{mark}"), turn=name))
            await store.append(author.write(answered(f"x{mark}"), turn=name))
            if turn < turns - 1:
                await store.append(author.write(answered(f"y{mark}"), turn=name))
                await store.append(author.write(ev.TurnEnded(outcome="completed"), turn=name))
        large = {"role": "user", "content": f"{number}{LARGE}"}
        await store.append(author.write(added("large", item=large)))
    leased = authors[0]
    await store.append(leased.write(added("l"), turn=f"{leased.id}-t{turns - 1}"))
    fork, first = Author.fork(authors[1].state, "fork")
    await store.append(fork.write(first, added("f"), ev.ItemRemoved(key=f"in-1.{0}", ordinal=0)))
    authors.append(fork)
    return {author.id: author.state.version for author in authors}
