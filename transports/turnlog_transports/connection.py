"""One WebSocket: a reader that tells the lanes' frames apart, and the end of each response.

The one rule: what came over a connection counts for the response in progress on its lane or for
none (W-24), and a lane is never used again before its terminal frame. Whatever is wrong with one
lane concerns no other; whatever is wrong with the socket ends them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from turnlog.canonical import text
from turnlog.errors import NotSent
from turnlog.ports import Frame, Late, Timeouts

from . import wire
from .direct import DirectConnection
from .lanes import NOT_BEGUN, Asked, Lane, Line, Place, stops_by_closing
from .sequence import Sequencer, response_id
from .stream import Stream

LIMIT_REACHED = "websocket_connection_limit_reached"
"""The code with which a provider ends a connection that is too old; it may come at any time."""

TOO_LARGE = "request_too_large"
"""Our code for a request that the provider's end of a WebSocket does not take for its size."""

CLOSE_TIMEOUT = 1.0
"""How many seconds a provider has to answer a goodbye; nobody but `close` waits for it."""

_CREATE = b'{"type":"response.create"'
_logger = logging.getLogger("turnlog.transports")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for every connection of a transport. `lane_buffer`, `max_frame` are in bytes."""

    timeouts: Timeouts
    lane_buffer: int
    max_frame: int


@dataclass(slots=True)
class Channel:
    """A lane as it is on the socket: its numbering, and the response in progress, if any.

    `source` is the lane that the response forks, until the provider has begun it.
    """

    lane: Lane
    sequence: Sequencer
    stream: Stream | None = None
    source: Lane | None = None

    def unpin(self) -> None:
        """Let the source of a fork move on."""
        if self.source is not None:
            self.source.forks -= 1
            self.source = None


class Connection:
    """A socket and the responses on it. `changed` is called when something was freed or lost.

    `over` says that the connection has been given up: it is closed, or about to be.
    """

    def __init__(
        self,
        socket: DirectConnection,
        line: Line,
        settings: Settings,
        *,
        changed: Callable[[Connection], None],
        late: Callable[[Late], None],
    ) -> None:
        self.socket = socket
        self.line = line
        self.over = False
        self._settings = settings
        self._changed = changed
        self._late = late
        self._channels: dict[str | None, Channel] = {}
        self._only: str | None = None
        self._loop = asyncio.get_running_loop()
        socket.hand_over(self._arrived, largest=settings.max_frame)

    @property
    def open(self) -> bool:
        """Whether something can still be written."""
        return not self.over and self.socket.state is State.OPEN

    def begin(self, place: Place, asked: Asked, payload: bytes) -> Stream:
        """Write a request to its lane; what comes of it arrives at the stream.

        All of it is handed to the socket at once, so that nothing can come between the decision
        and its effect; how long the socket takes counts for the first frame's deadline.
        """
        lane = place.lane
        self.line.begin(place, self._loop.time())
        channel = self._channels.get(lane.name)
        if channel is None:
            channel = self._channels[lane.name] = Channel(lane, Sequencer(lane.name))
        channel.stream = stream = Stream(
            asked,
            self._settings.timeouts,
            bound=self._settings.lane_buffer,
            expired=partial(self._expired, channel),
            unread=self._is_unread,
        )
        channel.source = place.source
        channel.sequence.begin()
        self._count()
        broadcast([self.socket], on_lane(payload, lane.name).decode())
        return stream

    def leave(self, stream: Stream) -> None:
        """Whoever asked for a response takes nothing more of it, whether it was over or not."""
        given_up = not stream.listening
        seen = stream.leave()
        if seen is not None and not given_up:
            # It ended, and nobody has heard of it: nobody will continue from it.
            for lane in self.line.lanes.values():
                lane.forget(response_id(seen))
            self._tell(stream, seen)
            self._changed(self)
        if not given_up and not stream.over:
            self._give_up(stream)

    def retire(self) -> None:
        """Take nothing new, and close once nothing is in flight."""
        self.line.retiring = True
        if not self.line.busy:
            self.end()
        self._changed(self)

    def end(self) -> None:
        """Give the connection up, with whatever is in flight on it."""
        self._lose("the connection was closed")

    async def read(self) -> None:
        """Wait until the socket ends, and tell the lanes what became of it."""
        why, refused = "the connection could not be read any more", False
        try:
            await self.socket.recv()  # there is nothing for it: it raises at the end
        except ConnectionClosed as error:
            why, refused = _why(error), _was_too_large(error)
        finally:
            self._lose(why, refused=refused)

    async def close(self) -> None:
        """Say goodbye; a peer that does not answer is left all the same."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.socket.close()
        except TimeoutError:
            # A peer that reads nothing more would hold up even our goodbye.
            self.socket.transport.abort()

    # -- what arrives ----------------------------------------------------------------------

    def _is_unread(self) -> bool:
        return self.socket.behind

    def _arrived(self, messages: list[bytes]) -> None:
        for raw in messages:
            if not self.over:
                self._read(raw)

    def _read(self, raw: bytes) -> None:
        frame = wire.read(raw, connection=self.line.id, lane=self._only)
        if limit_reached(frame):
            self._limited(frame, len(raw))
            return
        channel = self._channels.get(frame.lane)
        if channel is None or not channel.sequence.ours(frame):
            note_stray(frame)
        else:
            self._deliver(channel, frame, len(raw))

    def _limited(self, frame: Frame, size: int) -> None:
        # Said without a lane, it is said to all who wait for something.
        named = text(frame.data, "stream_id")
        busy = [c for c in self._channels.values() if c.lane.busy]
        ended = [c for c in busy if named in (None, c.lane.name)]
        self.line.retiring = True
        for channel in ended:
            own = replace(frame, lane=channel.lane.name)
            channel.sequence.ours(own)
            self._deliver(channel, own, size)
        if not ended:
            note_stray(frame)
        self.retire()

    def _deliver(self, channel: Channel, frame: Frame, size: int) -> None:
        stream = channel.stream
        if stream is None:
            return
        if not stream.put(frame, size):
            stream.drain()
        if frame.terminal is not None:
            self._settle(channel, stream, frame)
        elif channel.source is not None and frame.type not in NOT_BEGUN:
            channel.unpin()
            self._changed(self)

    def _settle(self, channel: Channel, stream: Stream, frame: Frame) -> None:
        """A response is over: note what the provider remembers now, and free its lane."""
        heard = channel.sequence.response
        channel.lane.note(stream.asked, frame.terminal, heard, wanted=stream.listening)
        self._free(channel, stream)
        if not stream.listening:
            self._tell(stream, frame)
        self._freed()

    def _free(self, channel: Channel, stream: Stream) -> None:
        stream.finish()
        channel.stream = None
        channel.unpin()
        self.line.end(channel.lane, self._loop.time())
        self._count()

    def _freed(self) -> None:
        if self.line.retiring and not self.line.busy:
            self.end()
        else:
            self._changed(self)

    def _count(self) -> None:
        # A frame that names no lane is that of the only response in flight, if there is one.
        busy = [channel.lane.name for channel in self._channels.values() if channel.lane.busy]
        self._only = busy[0] if len(busy) == 1 else None

    # -- what is given up ------------------------------------------------------------------

    def _give_up(self, stream: Stream) -> None:
        """Nobody waits for a response any more: stop it, or let it run out behind the others."""
        lane = next(each.lane for each in self._channels.values() if each.stream is stream)
        if stops_by_closing(self.line, lane, stream.asked.conversation):
            self.end()
        else:
            stream.drain()

    def _expired(self, channel: Channel, stream: Stream, listening: bool) -> None:
        if listening:
            self._give_up(stream)
        else:
            # It did not even end by itself: nothing can be asked for on this lane again.
            channel.lane.note(stream.asked, None, None, wanted=False)
            self._free(channel, stream)
            self.retire()

    def _lose(self, why: str, *, refused: bool = False) -> None:
        """Nothing more comes. `refused` says that a request was too large, which one is not said:
        it is known where only one was out and nothing of it was heard.
        """
        if self.over:
            return
        self.over = self.line.retiring = True
        lost = [(each, each.stream) for each in self._channels.values() if each.stream is not None]
        for channel, stream in lost:
            alone = refused and len(lost) == 1 and not stream.heard
            stream.fail(_too_large(why) if alone else stream.gone(why))
            self._free(channel, stream)
        self._changed(self)

    def _tell(self, stream: Stream, frame: Frame) -> None:
        asked = stream.asked
        self._late(Late(conversation=asked.conversation, attempt=asked.attempt, frame=frame))


def on_lane(payload: bytes, lane: str | None) -> bytes:
    """A `response.create` that was written without a lane, with one."""
    if lane is None:
        return payload
    return b'%s,"stream_id":"%s"%s' % (_CREATE, lane.encode(), payload[len(_CREATE) :])


def _why(error: ConnectionClosed) -> str:
    """Why a WebSocket closed; a frame that was too large for us names the setting."""
    sent = None if error.rcvd_then_sent else error.sent
    if sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG:
        return f"the provider sent a {sent.reason}: raise the option max_frame_bytes"
    return f"the WebSocket closed: {error}"


def _was_too_large(error: ConnectionClosed) -> bool:
    """Whether the provider closed the WebSocket because a request was too large for it."""
    return error.rcvd is not None and error.rcvd.code == CloseCode.MESSAGE_TOO_BIG


def _too_large(why: str) -> NotSent:
    return NotSent(
        f"the request is too large for the provider's WebSocket ({why}): compact the context,"
        " remove items, or fork",
        status=413,
        code=TOO_LARGE,
    )


def limit_reached(frame: Frame) -> bool:
    """Whether a frame says that the connection is too old to go on."""
    return frame.problem is not None and frame.problem.code == LIMIT_REACHED


def note_stray(frame: Frame) -> None:
    """Say in the log that a frame came which belongs to no response in progress (W-22, W-24)."""
    _logger.warning(
        "a frame of no response in progress: type %r, response %r, connection %r, lane %r",
        frame.type,
        response_id(frame),
        frame.connection,
        frame.lane,
    )
