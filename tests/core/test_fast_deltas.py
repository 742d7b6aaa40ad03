"""The short ways of deltas, from frame to watcher, tell the same as the long ones."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlog import events as ev
from turnlog.canonical import Json, JsonObject
from turnlog.narrator import Narrator
from turnlog.ports import Frame
from turnlog.reception import Reception
from turnlog.updates import Cursor, Delta, DeltaType, Update, cursor_of, delta_of

from .test_narrator import Tape, tapes, told

# -- values that are made quickly ----------------------------------------------------------


def test_a_cursor_and_a_delta_that_were_made_quickly_are_like_any_other() -> None:
    cursor = cursor_of(7, "a1", "text:0:0", 3, (("text:0:1", 2),))
    plain = Cursor(7, "a1", "text:0:0", 3, (("text:0:1", 2),))
    assert (cursor, repr(cursor), str(cursor), hash(cursor)) == (
        plain,
        repr(plain),
        str(plain),
        hash(plain),
    )
    delta = delta_of(cursor, {"x": 1}, "text.delta", "abc", "text:0:0", "m1")
    same = Delta(
        cursor=plain, raw={"x": 1}, type="text.delta", delta="abc", part="text:0:0", item="m1"
    )
    assert (delta, repr(delta), delta.raw) == (same, repr(same), {"x": 1})
    assert replace(delta, delta="b") == replace(same, delta="b")
    match delta:
        case Delta(cursor=Cursor(version=7), delta=said):
            assert said == "abc"
        case _:
            pytest.fail("it is no Delta")


@pytest.mark.parametrize(
    "made", [cursor_of(1, "a", "p", 1, ()), delta_of(Cursor(), {}, "text.delta", "x", "p", None)]
)
def test_what_was_made_quickly_cannot_be_changed(made: Cursor | Delta) -> None:
    for each in fields(made):
        with pytest.raises(FrozenInstanceError):
            setattr(made, each.name, None)


# -- frames to deltas ----------------------------------------------------------------------


class SlowReception(Reception):
    """One that looks at all there may be in every frame."""

    def _more(self, kind: DeltaType, frame: Frame) -> Delta | None:
        return None


KINDS = ("output_text", "refusal", "reasoning_text", "reasoning_summary_text")
places: st.SearchStrategy[Json] = st.sampled_from([0, 0, 0, 1, None, True, -1, 2_000_000, "0", [0]])


@st.composite
def deltas(draw: st.DrawFn) -> Frame:
    """A delta of a few parts; any field may be left out, or be what it should not."""
    data: dict[str, Json] = {}
    kind = draw(st.sampled_from(KINDS))
    if draw(st.integers(0, 9)):
        data["output_index"] = draw(places)
    key = "summary_index" if "summary" in kind else "content_index"
    if draw(st.integers(0, 9)):
        data[key] = draw(places)
    if draw(st.integers(0, 9)):
        data["item_id"] = draw(st.sampled_from(["m0", "m0", "m1", None, 7]))
    if draw(st.integers(0, 9)):
        data["delta"] = draw(st.sampled_from(["a", "b😀", "", None, ["x"]]))
    return Frame(type=f"response.{kind}.delta", data=data)


def item(place: int) -> Frame:
    data: JsonObject = {"output_index": place, "item": {"type": "message", "id": f"m{place}"}}
    return Frame(type="response.output_item.added", data=data)


def primed(part: str, offset: int, said: str) -> ev.OutputCheckpointed:
    return ev.OutputCheckpointed(attempt="a1", item=None, part=part, offset=offset, text=said)


checkpoints = st.builds(
    primed,
    st.sampled_from(["text:0:0", "refusal:0:0", "text:1:0"]),
    st.just(0),
    st.text(max_size=4),
)


@given(
    frames=st.lists(deltas() | st.builds(item, st.integers(0, 1)) | st.none(), max_size=12),
    saved=st.lists(checkpoints, max_size=2),
)
def test_more_of_a_known_text_is_told_like_its_beginning(
    frames: list[Frame | None], saved: list[ev.OutputCheckpointed]
) -> None:
    """None stands for a checkpoint."""
    quick, slow = Reception(attempt="a1", version=3), SlowReception(attempt="a1", version=3)
    for each in (quick, slow):
        each.prime(saved)
    for frame in frames:
        if frame is None:
            assert quick.take_checkpoints() == slow.take_checkpoints()
        else:
            assert quick.feed(frame) == slow.feed(frame)
        unsaved = sum(max(0, part.length - part.saved) for part in quick.parts.values())
        assert quick.unsaved() == slow.unsaved() == unsaved
        assert quick.so_far() == slow.so_far()
        assert quick.outputs() == slow.outputs()
    assert quick.take_checkpoints() == slow.take_checkpoints()


# -- deltas to what a watcher sees ---------------------------------------------------------


class SlowNarrator(Narrator):
    """One that looks for gaps and overlaps behind every delta."""

    def _next(self, delta: Delta) -> list[Update]:
        return []


@given(tapes(), st.data())
def test_the_next_delta_of_a_text_is_told_like_any_other(tape: Tape, data: st.DataObject) -> None:
    seen = told(SlowNarrator(), tape.seen)
    assert told(Narrator(), tape.seen) == seen
    cursor = data.draw(st.sampled_from(seen)).cursor
    # A watcher that stands somewhere may join anywhere, and miss or see anything twice.
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(tape.seen))] * 2)))
    again = [*tape.log, *tape.seen[start:], *tape.seen[:stop], *tape.seen[start:stop]]
    assert told(Narrator(cursor), again) == told(SlowNarrator(cursor), again)
