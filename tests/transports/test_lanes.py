"""Which connection and lane a request takes, as values (`turnlog_transports.lanes`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog.canonical import Json
from turnlog.ports import Create, Terminal, Timeouts
from turnlog.state import Parent
from turnlog_transports import lanes
from turnlog_transports.deadlines import deadline
from turnlog_transports.lanes import Asked, Lane, Limits, Line, Place
from turnlog_transports.profiles import OPENAI

LIMITS = Limits(in_flight=2, names=3, connections=2, rotate=100.0)


def line(*own: Lane, id: str = "c1", opened: float = 0.0, limits: Limits = LIMITS) -> Line:
    busy = sum(lane.busy for lane in own)
    return Line(id, opened, limits, {lane.name: lane for lane in own}, busy=busy)


def held(name: str, response: str, owner: str = "a", **more: bool | int | float) -> Lane:
    lane = Lane(name, newest=response, owner=owner)
    for key, value in more.items():
        setattr(lane, key, value)
    return lane


def stored(name: str, response: str, owner: str = "a", used: float = 0.0) -> Lane:
    return Lane(name, newest=response, owner=owner, stored=True, used=used)


def parent(
    response: str, lane: str | None = "l1", *, on: str = "c1", store: bool = False
) -> Parent:
    return Parent(
        response=response,
        end=1,
        version=1,
        time=0,
        store=store,
        transport="websocket",
        connection=on,
        lane=lane,
    )


def asks(conversation: str = "a", behind: Parent | None = None) -> Create:
    return Create(body={}, conversation=conversation, parent=behind)


def chosen(request: Create, *lines: Line, now: float = 0.0, connecting: int = 0) -> Place | None:
    known = {each.id: each for each in lines}
    return lanes.place(request, known, LIMITS, now, connecting=connecting)


def name_of(place: Place | None) -> tuple[str, str | None] | None:
    return None if place is None else (place.line.id, place.lane.name)


# -- where a request goes ------------------------------------------------------------------


def test_a_continuation_goes_to_the_lane_of_its_parent() -> None:
    own = held("l1", "r1")
    place = chosen(asks("a", parent("r1")), line(own, Lane("l2")))
    assert place is not None and place.lane is own and place.source is None


def test_a_fork_goes_to_another_lane_of_the_same_connection() -> None:
    source, other = held("l1", "r1"), Lane("l2")
    place = chosen(asks("b", parent("r1")), line(source, other), line(id="c2"))
    assert place is not None and place.lane is other and place.source is source


def test_a_parent_that_is_being_forked_is_continued_on_another_lane_too() -> None:
    source = held("l1", "r1", forks=1)
    place = chosen(asks("a", parent("r1")), line(source, Lane("l2")))
    assert name_of(place) == ("c1", "l2")
    assert place is not None and place.source is source


def test_a_fork_from_a_stored_parent_is_no_fork_of_its_lane() -> None:
    place = chosen(asks("b", parent("r1", store=True)), line(stored("l1", "r1")))
    assert name_of(place) == ("c1", "lane-02")
    assert place is not None and place.source is None


FULL = line(held("l1", "r1"), held("l2", "x", busy=True), held("l3", "y", busy=True))
UNREMEMBERED: dict[str, tuple[Line, Parent, str]] = {
    "no such connection": (line(held("l1", "r1")), parent("r1", on="c9"), "a"),
    "no such lane": (line(held("l1", "r1")), parent("r1", "l9"), "a"),
    "moved on": (line(held("l1", "r2")), parent("r1"), "a"),
    "busy": (line(held("l1", "r1", busy=True)), parent("r1"), "a"),
    "no slot": (FULL, parent("r1"), "a"),
    "retiring": (replace(line(held("l1", "r1")), retiring=True), parent("r1"), "a"),
    "too old": (line(held("l1", "r1"), opened=-100.0), parent("r1"), "a"),
    "no lane for a fork": (
        line(held("l1", "r1"), held("l2", "x"), held("l3", "y")),
        parent("r1"),
        "b",
    ),
}


@pytest.mark.parametrize("case", UNREMEMBERED)
def test_w13_an_unstored_parent_is_remembered_on_its_lane_or_not_at_all(case: str) -> None:
    found, behind, conversation = UNREMEMBERED[case]
    assert lanes.continuation(behind, conversation, {found.id: found}, 0.0) is None


def test_w49_a_stored_parent_draws_its_request_to_its_connection() -> None:
    home, younger = line(stored("l1", "r1"), Lane("l2")), line(id="c2")
    moved_on = parent("r0", store=True)
    assert name_of(chosen(asks("a", moved_on), home, younger)) == ("c1", "l1")
    assert name_of(chosen(asks("a", parent("r1", store=True)), home, younger)) == ("c1", "l1")


def test_w49_where_its_connection_is_full_it_goes_elsewhere() -> None:
    full = line(held("l1", "x", busy=True), held("l2", "y", busy=True))
    assert name_of(chosen(asks("a", parent("r", store=True)), full, line(id="c2"))) == (
        "c2",
        "lane-01",
    )


def test_the_youngest_connection_with_room_is_preferred() -> None:
    assert name_of(chosen(asks(), line(), line(id="c2"))) == ("c2", "lane-01")


def test_w42_a_connection_that_is_too_old_takes_nothing_new() -> None:
    old = line(opened=0.0)
    assert name_of(chosen(asks(), old, now=99.9)) == ("c1", "lane-01")
    assert chosen(asks(), old, now=100.0) is None


def test_a_lane_of_ones_own_or_an_empty_one_comes_before_a_new_name() -> None:
    assert name_of(chosen(asks("a"), line(stored("l1", "r1", "b"), stored("l2", "r2", "a")))) == (
        "c1",
        "l2",
    )
    assert name_of(chosen(asks("a"), line(stored("l1", "r1", "b"), Lane("l2")))) == ("c1", "l2")


def test_a_new_name_comes_before_the_memory_of_another_conversation() -> None:
    assert name_of(chosen(asks("a"), line(stored("l1", "r1", "b")))) == ("c1", "lane-02")


def test_where_every_name_is_taken_the_stored_response_used_longest_ago_goes() -> None:
    taken = [stored(f"l{n}", f"r{n}", "b", used=used) for n, used in ((1, 3.0), (2, 1.0), (3, 2.0))]
    assert name_of(chosen(asks("a"), line(*taken))) == ("c1", "l2")


def test_an_unstored_response_is_taken_only_where_no_connection_can_be_opened() -> None:
    def full(id: str, used: float) -> Line:
        return line(*[held(f"l{n}", f"{id}{n}", used=used + n) for n in (1, 2, 3)], id=id)

    assert chosen(asks("b"), full("c1", 0.0)) is None  # another one may be opened
    assert chosen(asks("b"), full("c1", 5.0), full("c2", 1.0), connecting=1) is None
    assert name_of(chosen(asks("b"), full("c1", 5.0), full("c2", 1.0))) == ("c2", "l1")


def test_what_is_busy_or_being_forked_is_never_taken() -> None:
    busy = [held("l1", "r", busy=True), held("l2", "s", forks=1), held("l3", "t", forks=1)]
    assert chosen(asks("b"), line(*busy), line(*busy, id="c2")) is None


def test_without_lanes_there_is_one_response_at_a_time_and_no_name() -> None:
    one = lanes.limits(replace(OPENAI, lanes=False), connections=1, rotate=100.0)
    assert (one.in_flight, one.names, one.named) == (1, 1, False)
    found = line(limits=one)
    place = chosen(asks(), found)
    assert place is not None and place.lane.name is None
    found.begin(place, 1.0)
    assert chosen(asks(), found) is None


def test_with_lanes_the_profile_says_how_many() -> None:
    many = lanes.limits(replace(OPENAI, max_in_flight=4, max_lanes=8), connections=3, rotate=9.0)
    assert many == Limits(in_flight=4, names=8, connections=3, rotate=9.0)


# -- how many connections ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waiting", "connecting", "more"), [(0, 0, 0), (1, 0, 1), (2, 0, 1), (3, 1, 1), (3, 5, 0)]
)
def test_w43_no_more_connections_are_opened_than_who_waits_needs(
    waiting: int, connecting: int, more: int
) -> None:
    assert lanes.wanted(waiting, connecting, LIMITS) == more


def test_w44_every_connection_counts_until_it_is_gone() -> None:
    assert lanes.may_open({"c1"}, LIMITS, connecting=0) == 1
    assert lanes.may_open({"c1"}, LIMITS, connecting=1) == 0
    assert lanes.may_open({"c1", "c2", "c3"}, LIMITS, connecting=0) == 0


def test_w44_idle_connections_beyond_the_bound_go_unless_they_remember_something() -> None:
    idle = [replace(line(id=f"c{n}"), used=float(n)) for n in range(3)]
    kept = [line(held("l1", "r1"), id="held"), line(Lane("l1", busy=True), id="busy")]
    assert [each.id for each in lanes.surplus([*idle, *kept], 1)] == ["c1", "c0"]
    assert lanes.surplus([*idle, *kept], 3) == []


# -- what the provider remembers -----------------------------------------------------------

ASKED = Asked(conversation="a", previous="r1", stored=False)


@pytest.mark.parametrize(
    ("asked", "terminal", "response", "newest"),
    [
        (ASKED, "completed", "r2", "r2"),
        (ASKED, "completed", None, None),
        (ASKED, "failed", "r2", None),
        (ASKED, "error", None, None),  # the continuation failed: the parent is gone
        (replace(ASKED, previous="elsewhere"), "error", None, "r1"),
        (replace(ASKED, previous=None), "error", None, "r1"),
        (replace(ASKED, previous=None), "incomplete", "r2", None),
        (ASKED, None, None, None),
    ],
)
def test_law8_what_is_remembered_when_a_response_is_over(
    asked: Asked, terminal: Terminal | None, response: str | None, newest: str | None
) -> None:
    lane = held("l1", "r1", "z")
    lane.note(asked, terminal, response, wanted=True)
    assert lane.newest == newest
    assert lane.owner == ("a" if terminal == "completed" else "z")


@pytest.mark.parametrize("response", ["r2", None])
def test_w02_what_nobody_waited_for_is_no_parent(response: str | None) -> None:
    lane = held("l1", "r1")
    lane.note(replace(ASKED, previous=None), "completed", response, wanted=False)
    assert lane.newest is None


def test_a_response_nobody_heard_of_is_forgotten_and_no_other() -> None:
    lane = held("l1", "r1")
    lane.forget("r0")
    assert lane.newest == "r1"
    lane.forget("r1")
    assert lane.newest is None


@pytest.mark.parametrize(
    ("store", "default", "expected"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_a_request_says_whether_its_response_is_stored(
    store: bool | None, default: bool, expected: bool
) -> None:
    body: dict[str, Json] = {"previous_response_id": "r1", "store": store}
    request = Create(body=body, conversation="a", attempt="t")
    assert lanes.asked(request, store_default=default) == Asked(
        conversation="a", attempt="t", previous="r1", stored=expected
    )


# -- what stops a response -----------------------------------------------------------------


def test_w02_closing_stops_a_response_where_it_costs_nobody_else_anything() -> None:
    left = held("l1", "r1", busy=True)
    assert lanes.stops_by_closing(line(left), left, "a")
    assert lanes.stops_by_closing(line(left, held("l2", "r2", "a")), left, "a")
    assert lanes.stops_by_closing(line(left, stored("l2", "r2", "b")), left, "a")
    assert not lanes.stops_by_closing(line(left, held("l2", "r2", "b")), left, "a")
    assert not lanes.stops_by_closing(line(left, Lane("l2", busy=True)), left, "a")
    gone = replace(line(left, held("l2", "r2", "b")), retiring=True)
    assert lanes.stops_by_closing(gone, left, "a")  # what it remembers is lost anyhow


NEVER = Timeouts(first_frame=None, idle=None, total=None)


@pytest.mark.parametrize(
    ("timeouts", "last", "behind", "at"),
    [
        (Timeouts(first_frame=5, idle=7, total=50), None, False, 15.0),
        (Timeouts(first_frame=5, idle=7, total=50), 20.0, False, 27.0),
        (Timeouts(first_frame=5, idle=7, total=50), 20.0, True, 60.0),
        (Timeouts(first_frame=5, idle=7, total=12), 20.0, False, 22.0),
        (replace(NEVER, idle=7), None, False, None),
        (replace(NEVER, idle=7), 20.0, True, None),
        (NEVER, 20.0, False, None),
    ],
)
def test_w23_a_response_has_the_deadline_that_comes_first(
    timeouts: Timeouts, last: float | None, behind: bool, at: float | None
) -> None:
    found = deadline(timeouts, begun=10.0, last=last, behind=behind)
    assert (found and found.at) == at


# -- whatever happens ----------------------------------------------------------------------


@given(st.data())
def test_the_provider_s_limits_hold_whatever_is_asked_and_however_it_ends(
    data: st.DataObject,
) -> None:
    known = {"c1": line(), "c2": line(id="c2")}
    flying: list[tuple[Place, Asked]] = []
    parents: list[Parent] = []
    for now in range(data.draw(st.integers(1, 25))):
        ends = data.draw(st.booleans())
        if flying and ends:
            place, asked = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            terminal: Terminal = data.draw(st.sampled_from(["completed", "failed", "error"]))
            id = f"r{now}"
            place.lane.note(asked, terminal, id, wanted=data.draw(st.booleans()))
            place.line.end(place.lane, now)
            if place.source is not None:
                place.source.forks -= 1
            parents.append(parent(id, place.lane.name, on=place.line.id, store=asked.stored))
            continue
        behind = data.draw(st.sampled_from([None, *parents]))
        who = data.draw(st.sampled_from("abc"))
        request = Create(body={"store": data.draw(st.booleans())}, parent=behind, conversation=who)
        found = lanes.place(request, known, LIMITS, float(now))
        if found is not None:
            assert found.lane.free  # a lane is never used before its end, nor while it is forked
            if behind is not None and found.source is not None:
                assert found.source.newest == behind.response and found.source is not found.lane
            found.line.begin(found, now)
            flying.append((found, lanes.asked(request, store_default=True)))
        for each in known.values():
            assert each.busy == sum(lane.busy for lane in each.lanes.values()) <= LIMITS.in_flight
            assert len(each.lanes) <= LIMITS.names
