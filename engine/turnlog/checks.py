"""What was found at an endpoint, and what an answer means: the words of `turnlog doctor`.

The one rule: what was not seen is not said. A check that was not tried, or whose answer can mean
two things, is neither good nor bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from .canonical import obj, text
from .errors import ConfigurationError, NotSent, TurnlogError
from .ports import Endpoint, Frame, Problem, Profile, Transport

NOBODY = "resp_" + "0" * 48
"""The id of a response that cannot exist: whoever knows no such response has let us in."""

NEEDED = frozenset({"address", "reachable", "key", "model", "lanes"})
"""Without these no turn gets through; all else costs only time or money."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `ok` is None where it was not tried, or is neither."""

    name: str
    ok: bool | None
    said: str
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """All that was looked at, which transport a request would take, and whether it gets through."""

    address: str
    profile: str
    transport: str
    usable: bool
    checks: Sequence[Check]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: its frames, and the error behind them."""

    frames: Sequence[Frame]
    error: TurnlogError | None = None

    @property
    def problem(self) -> Problem | None:
        """What the provider reports as wrong."""
        return next((each.problem for each in self.frames if each.problem is not None), None)

    @property
    def done(self) -> bool:
        """Whether it ended as it should; an answer that was cut short did."""
        last = self.frames[-1].terminal if self.frames else None
        return self.error is None and last in ("completed", "incomplete")

    @property
    def response(self) -> str | None:
        """The id of the response."""
        found = (text(obj(each.data, "response"), "id") for each in self.frames)
        return next((id for id in found if id is not None), None)

    @property
    def why(self) -> str:
        """What went wrong, in words."""
        problem = self.problem
        if problem is None:
            return str(self.error or "the answer ended without saying how")
        return f"HTTP {problem.status}: {problem.message}" if problem.status else problem.message


def place(endpoint: Endpoint, profile: Profile) -> str:
    """The address, without what may be a secret in it (law 15)."""
    try:
        parts = urlsplit(endpoint.base_url or profile.base_url or "")
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def addressed(endpoint: Endpoint, transport: Transport) -> Check:
    """Where requests would go, with which profile, and why that one."""
    try:
        transport.check()
    except ConfigurationError as error:
        return Check("address", False, str(error))
    profile = transport.profile
    why = "no profile has this host" if not profile.hosts else "it has this host"
    if endpoint.base_url is None:
        why = "the default"
    if endpoint.profile is not None:
        why = "as asked for"
    return Check("address", True, f"{place(endpoint, profile)}, profile {profile.name} ({why})")


def handshaken(profile: Profile, refusal: TurnlogError | None) -> list[Check]:
    """What a handshake says of a provider that cannot be asked about a response."""
    status = refusal.status if isinstance(refusal, NotSent) else None
    if refusal is not None and status is None:
        return [
            Check("reachable", False, str(refusal), "check the address, and the way to it"),
        ]
    reachable = Check("reachable", True, "yes, by the handshake of a WebSocket")
    if status == 401:
        return [reachable, Check("key", False, str(refusal), _mend_key(profile))]
    said = f"not asked: the profile {profile.name} cannot ask about a response"
    key = Check("key", True, "accepted") if refusal is None else Check("key", None, said)
    return [reachable, key]


def keyed(profile: Profile, answer: Answer) -> Check:
    """Whether a key was accepted, by the answer to a question about nobody."""
    status = answer.problem.status if answer.problem is not None else None
    if status in (401, 403):
        return Check("key", False, answer.why, _mend_key(profile))
    if denied(answer):
        return Check("key", True, "accepted")
    return Check(
        "key", None, answer.why, "check that the address ends before /responses, as most do in /v1"
    )


def _mend_key(profile: Profile) -> str:
    where = f"{profile.key_env}, --key" if profile.key_env else "--key"
    return f"check the key ({where} or api_key=), and what it may do"


def denied(answer: Answer) -> bool:
    """Whether the provider looked for a response that cannot exist, and says so."""
    problem = answer.problem
    return problem is not None and problem.status in (400, 404) and NOBODY in problem.message


def upgraded(profile: Profile, refusal: TurnlogError | None) -> Check:
    """What became of a WebSocket, beside what the profile says."""
    if refusal is None:
        return compared("websocket", profile.websocket, None)
    status = refusal.status if isinstance(refusal, NotSent) else None
    said = f"refused with HTTP {status}" if status is not None else str(refusal)
    if not profile.websocket:
        return Check("websocket", None, f"{said}, and the profile says no")
    return Check("websocket", False, said, "HTTP is used instead; --transport http spares the try")


def unlaned(answers: Sequence[Answer]) -> str | None:
    """What two answers lack to have come by two lanes of one WebSocket; None for nothing."""
    for answer in answers:
        if not answer.done:
            return f"nothing came back by a lane of its own: {answer.why}"
    frames = [each for answer in answers for each in answer.frames]
    if len({each.connection for each in frames}) > 1:
        return "each request took a connection of its own"
    if any(each.lane != text(each.data, "stream_id") for each in frames):
        return "the server did not echo stream_id"
    return None if len({each.lane for each in frames}) > 1 else "both came by one lane"


def compared(name: str, promised: bool, missing: str | None) -> Check:
    """What was found, beside what the profile says."""
    named = name.replace(" ", "_")
    if missing is None and promised:
        return Check(name, True, "yes")
    if missing is None:
        fix = f"pass the profile with {named}=True, if its page says nothing against it"
        return Check(name, None, "yes, but the profile says no", fix)
    if promised:
        fix = f"pass the profile with {named}=False (dataclasses.replace)"
        return Check(name, False, f"the profile says yes; {missing}", fix)
    return Check(name, None, f"no, as the profile says: {missing}")


def chosen(profile: Profile, way: str) -> Check:
    """Which way a request would take, and why."""
    if way == "websocket":
        return Check("transport", True, "websocket, which was accepted")
    why = "no WebSocket was accepted" if profile.websocket else "the profile has no WebSocket"
    return Check("transport", True, f"http: {why}")
