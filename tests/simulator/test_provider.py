"""What the simulated provider keeps, continues, evicts and refuses (protocol 1.5 and 1.6)."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from turnlog.canonical import Json, JsonObject, array, obj, text
from turnlog.items import OUTPUT_OF
from turnlog.testing import scripts
from turnlog.testing.scripts import Reply
from turnlog_transports import answer as answers
from turnlog_transports.answer import Answer, refusal
from turnlog_transports.chain import Link
from turnlog_transports.generation import Cut, Garble, Generation, Send, Stall, Step, ends
from turnlog_transports.provider import Given, Playable, Provider

USER: JsonObject = {"type": "message", "role": "user", "content": "Hello."}


def body(*items: JsonObject, **fields: Json) -> JsonObject:
    return {"model": "gpt-5.5", "input": list(items) or [USER], **fields}


def after(response: str, *items: JsonObject, **fields: Json) -> JsonObject:
    return body(*items, previous_response_id=response, **fields)


def output(call_id: str) -> JsonObject:
    return {"type": "function_call_output", "call_id": call_id, "output": "ok"}


def run(found: Given) -> list[Step]:
    assert isinstance(found, Generation), found
    made = list(found)
    found.close()
    return made


def respond(provider: Provider, asked: JsonObject, **where: str) -> JsonObject:
    found = provider.create(asked, **where)
    run(found)
    assert isinstance(found, Generation)
    assert found.response is not None
    return found.response


def refused(found: Given) -> JsonObject:
    assert isinstance(found, Answer)
    assert found.status >= 400
    return obj(found.body, "error")


def says(provider: Provider, asked: JsonObject, **where: str) -> str:
    """The refusal's message, with whatever makes it recognisable."""
    found = refused(provider.create(asked, **where))
    assert found["type"] == "invalid_request_error"
    return str(found["message"])


def texts(count: int) -> list[Reply]:
    return [scripts.text(f"Answer {number}.") for number in range(count)]


# -- stored and unstored chains ------------------------------------------------------------


def test_a_stored_response_is_continued_from_anywhere() -> None:
    provider = Provider(texts(4))
    respond(provider, body(), connection="a")
    made = respond(provider, after("resp_1"))
    assert made["previous_response_id"] == "resp_1"
    respond(provider, after("resp_1"), connection="b")
    respond(provider, after("resp_2"), connection="a")


def test_an_unstored_response_is_continued_on_its_connection_only() -> None:
    provider = Provider(texts(2))
    respond(provider, body(store=False), connection="a")
    assert provider.remembers("a", "resp_1")
    for elsewhere in ({}, {"connection": "b"}):
        found = refused(provider.create(after("resp_1"), **elsewhere))
        assert found["code"] == "previous_response_not_found"
        assert found["param"] == "previous_response_id"
    respond(provider, after("resp_1", store=False), connection="a")


def test_only_the_newest_response_of_a_lane_is_remembered() -> None:
    provider = Provider(texts(4))
    respond(provider, body(store=False), connection="a")
    respond(provider, after("resp_1", store=False), connection="a")
    assert "resp_1" in says(provider, after("resp_1"), connection="a")
    respond(provider, after("resp_2", store=False), connection="a", lane="fork")
    respond(provider, after("resp_2", store=False), connection="a")


def test_a_disconnection_forgets_what_was_not_stored() -> None:
    provider = Provider(texts(2))
    respond(provider, body(store=False), connection="a")
    respond(provider, body(store=False), connection="b")
    provider.disconnect("a")
    assert not provider.remembers("a", "resp_1")
    assert provider.remembers("b", "resp_2")


def test_a_failed_continuation_evicts_its_parent() -> None:
    provider = Provider([scripts.text("One."), scripts.error(500)])
    respond(provider, body(store=False), connection="a")
    assert isinstance(provider.create(after("resp_1"), connection="a"), Answer)
    assert "not found" in says(provider, after("resp_1"), connection="a")


def test_a_refused_continuation_evicts_its_parent_too() -> None:
    provider = Provider(texts(1))
    respond(provider, body(store=False), connection="a")
    assert "call_x" in says(provider, after("resp_1", output("call_x")), connection="a")
    assert not provider.remembers("a", "resp_1")


def test_a_failed_continuation_of_another_lane_keeps_the_parent() -> None:
    provider = Provider([scripts.text("One."), scripts.error(500), scripts.text("Two.")])
    respond(provider, body(store=False), connection="a")
    provider.create(after("resp_1"), connection="a", lane="fork")
    respond(provider, after("resp_1"), connection="a")


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_fork_reads_its_parent_when_it_is_in_progress(taken: int) -> None:
    provider = Provider(texts(4))
    respond(provider, body(store=False), connection="a")
    fork = provider.create(after("resp_1", store=False), connection="a", lane="fork")
    assert isinstance(fork, Generation)
    for _ in range(taken):
        fork.take()
    respond(provider, after("resp_1", store=False), connection="a")
    rest = [step.event for step in fork if isinstance(step, Send)]
    if taken == 2:
        assert rest[-1]["type"] == "response.completed"
    else:
        (lost,) = rest
        assert obj(lost, "error")["code"] == "previous_response_not_found"
        assert fork.terminates
        assert not provider.remembers("a", "resp_2")
        assert provider.remembers("a", "resp_3")


def test_without_checks_a_fork_is_never_refused() -> None:
    provider = Provider(texts(4), checks=False)
    respond(provider, body(store=False), connection="a")
    fork = provider.create(after("resp_1", store=False), connection="a", lane="fork")
    respond(provider, after("resp_1", store=False), connection="a")
    assert len(run(fork)) == len(run(provider.create(body())))


def test_a_generation_has_nothing_to_tell_of() -> None:
    found = Provider(texts(1)).create(body())
    assert isinstance(found, Generation)
    told: list[str] = []
    forget = found.watch(lambda: told.append("changed"))
    run(found)
    forget()
    assert told == []


def test_a_stored_parent_survives_a_failed_continuation() -> None:
    provider = Provider([scripts.text("One."), scripts.failed(), scripts.text("Two.")])
    respond(provider, body(), connection="a")
    assert respond(provider, after("resp_1"), connection="a")["status"] == "failed"
    respond(provider, after("resp_1"), connection="a")


def test_a_failed_response_is_found_and_never_continued() -> None:
    provider = Provider([scripts.failed(), scripts.text("Two.")])
    respond(provider, body())
    found = provider.retrieve("resp_1")
    assert isinstance(found, Answer)
    assert found.body["status"] == "failed"
    assert "not found" in says(provider, after("resp_1"))


def test_instructions_are_not_carried_over() -> None:
    provider = Provider(texts(2))
    respond(provider, body(instructions="Be brief."))
    assert respond(provider, after("resp_1"))["instructions"] is None


def test_usage_counts_the_chain() -> None:
    provider = Provider(texts(2))
    first = obj(respond(provider, body()), "usage")
    second = obj(respond(provider, after("resp_1")), "usage")
    assert obj(second, "input_tokens_details")["cached_tokens"] == first["total_tokens"]


def test_a_warm_up_makes_a_response_and_takes_nothing_from_the_script() -> None:
    provider = Provider(texts(1))
    warm = respond(provider, body(generate=False), connection="a")
    assert (warm["output"], provider.left) == ([], 1)
    respond(provider, after("resp_1"), connection="a")
    assert provider.left == 0


# -- what is kept --------------------------------------------------------------------------


def test_a_stored_response_is_found_and_deleted() -> None:
    provider = Provider(texts(1))
    made = respond(provider, body())
    found = provider.retrieve("resp_1")
    assert isinstance(found, Answer)
    assert found.body == made
    assert provider.delete("resp_1").body["deleted"] is True
    for gone in (provider.retrieve("resp_1"), provider.delete("resp_1")):
        assert isinstance(gone, Answer)
        assert gone.status == 404
    assert "not found" in says(provider, after("resp_1"))


def test_an_unstored_response_is_not_found() -> None:
    provider = Provider(texts(1))
    respond(provider, body(store=False))
    assert refused(provider.retrieve("resp_1"))
    assert provider.input_items("resp_1").status == 404


def test_what_a_response_was_asked_is_found_with_its_chain() -> None:
    provider = Provider(texts(2))
    respond(provider, body())
    respond(provider, after("resp_1", {**USER, "content": "Again."}))
    data = array(provider.input_items("resp_2").body, "data")
    assert [obj({"": item}, "")["role"] for item in data] == ["user", "user", "assistant"]


def test_a_response_that_streams_cannot_be_streamed_again() -> None:
    provider = Provider(texts(1))
    respond(provider, body())
    assert "background" in str(refused(provider.retrieve("resp_1", stream=True))["message"])
    assert "not found" in str(refused(provider.retrieve("resp_x", stream=True))["message"])


def test_a_lost_stream_ends_its_response() -> None:
    provider = Provider([scripts.text("Lost.").but(cut_after=3)])
    assert run(provider.create(body()))[-1] == Cut()
    assert refused(provider.retrieve("resp_1"))


def test_a_stream_left_early_ends_its_response() -> None:
    provider = Provider(texts(1))
    found = provider.create(body(), connection="a")
    assert isinstance(found, Generation)
    next(iter(found))
    found.close()
    found.close()
    assert refused(provider.retrieve("resp_1"))
    assert not provider.remembers("a", "resp_1")


def test_a_response_may_finish_on_the_server_after_its_stream_was_lost() -> None:
    reply = scripts.text("Kept.").but(cut_after=1, finishes=True, polls=2)
    provider = Provider([reply])
    found = provider.create(body())
    statuses: list[Json] = []

    def look() -> None:
        seen = provider.retrieve("resp_1")
        assert isinstance(seen, Answer)
        statuses.append(seen.body["status"])

    look()
    run(found)
    for _ in range(3):
        look()
    assert statuses == ["in_progress", "in_progress", "in_progress", "completed"]


# -- what is forgotten ---------------------------------------------------------------------


def alive() -> int:
    """How many links of chains there are."""
    gc.collect()
    return sum(isinstance(found, Link) for found in gc.get_objects())


@pytest.mark.parametrize("store", [True, False])
def test_only_the_newest_responses_are_kept_however_long_a_chain(store: bool) -> None:
    before = alive()
    provider = Provider(None, keep=5)
    made = respond(provider, body(store=store), connection="a")
    for _ in range(20):
        made = respond(provider, after(str(made["id"]), store=store), connection="a")
    assert alive() - before <= 6
    assert obj(made, "usage")["input_tokens"] != 0
    respond(provider, after("resp_21", store=store), connection="a")


def test_what_is_forgotten_is_not_found_and_what_is_kept_has_its_chain() -> None:
    provider = Provider(None, keep=2)
    for number in range(1, 4):
        previous: JsonObject = {"previous_response_id": f"resp_{number - 1}"} if number > 1 else {}
        respond(provider, {**body(), **previous})
    assert refused(provider.retrieve("resp_1"))
    assert len(array(provider.input_items("resp_3").body, "data")) == 3
    assert "msg_1" in says(provider, body({"id": "msg_1"}))
    respond(provider, body({"type": "item_reference", "id": "msg_3"}))


def test_a_response_that_came_again_under_its_id_is_forgotten_with_its_last() -> None:
    again = [Reply(body=WHOLE), Reply(body=WHOLE), *texts(1)]
    provider = Provider(again, keep=2)
    for _ in range(3):
        respond(provider, body())
    found = provider.retrieve("resp_r")
    assert isinstance(found, Answer)
    assert found.status == 200


# -- what is refused -----------------------------------------------------------------------


def test_every_outstanding_output_is_needed() -> None:
    both = scripts.calls(scripts.call("a"), scripts.call("b"))
    provider = Provider([both, *texts(1)])
    respond(provider, body())
    missing = "No tool output found for function call call_{}."
    assert says(provider, after("resp_1")) == missing.format(1)
    assert says(provider, after("resp_1", output("call_1"))) == missing.format(2)
    found = refused(provider.create(after("resp_1", output("call_2"))))
    assert (found["code"], found["param"]) == (None, "input")
    respond(provider, after("resp_1", output("call_2"), output("call_1"), USER))


def test_an_output_needs_its_call() -> None:
    provider = Provider([scripts.call("a"), *texts(2)])
    orphan = "No tool call found for function call output with call_id call_x."
    assert says(provider, body(output("call_x"), USER)) == orphan
    respond(provider, body())
    assert says(provider, after("resp_1", output("call_x"), output("call_1"))) == orphan
    respond(provider, after("resp_1", output("call_1")))
    # The call is further up the chain, and answered: not an orphan.
    respond(provider, after("resp_2", output("call_1"), USER))


def test_an_output_does_not_stand_before_its_call() -> None:
    provider = Provider(texts(1))
    call: JsonObject = {"type": "function_call", "call_id": "c", "name": "a", "arguments": "{}"}
    assert "No tool call found" in says(provider, body(output("c"), call))
    respond(provider, body(call, output("c"), output("c")))


def answered(kind: str, id: str) -> JsonObject:
    match kind:
        case "mcp_approval_request":
            return {"type": OUTPUT_OF[kind], "approval_request_id": id, "approve": True}
        case "local_shell_call":
            return {"type": OUTPUT_OF[kind], "id": id, "output": "ok"}
        case "tool_search_call":
            return {"type": OUTPUT_OF[kind], "call_id": id, "execution": "client", "tools": []}
        case _:
            return {"type": OUTPUT_OF[kind], "call_id": id, "output": "ok"}


@pytest.mark.parametrize("kind", sorted(OUTPUT_OF))
def test_every_kind_of_client_owned_call_wants_its_output(kind: str) -> None:
    extra: JsonObject = {"execution": "client"} if kind == "tool_search_call" else {}
    provider = Provider([scripts.item({"type": kind, **extra}), *texts(1)])
    (call,) = array(respond(provider, body()), "output")
    assert isinstance(call, dict)
    id = text(call, "call_id") or text(call, "id") or ""
    name = kind.replace("_", " ")
    assert says(provider, after("resp_1")) == f"No tool output found for {name} {id}."
    orphan = says(provider, body(answered(kind, "nobody's"), USER))
    expected = OUTPUT_OF[kind].replace("_", " ")
    assert orphan == f"No tool call found for {expected} with call_id nobody's."
    respond(provider, after("resp_1", answered(kind, id)))


def test_what_the_provider_ran_itself_wants_no_output() -> None:
    hosted: JsonObject = {"type": "tool_search_call", "execution": "server", "call_id": None}
    provider = Provider([scripts.item(hosted), *texts(1)])
    respond(provider, body())
    found: JsonObject = {"type": "tool_search_output", "execution": "server", "tools": []}
    respond(provider, after("resp_1", found, USER))


@pytest.mark.parametrize(
    "following",
    [
        (),
        (USER,),
        ({"role": "assistant", "content": "It is 42."},),
        ({"type": "reasoning", "id": "rs_2", "summary": []},),
    ],
)
def test_reasoning_needs_what_followed_it(following: tuple[JsonObject, ...]) -> None:
    thought: JsonObject = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert says(Provider(texts(1)), body(USER, thought, *following)) == (
        "Item 'rs_1' of type 'reasoning' was provided without its required following item."
    )


def test_reasoning_is_not_followed_by_an_output() -> None:
    call: JsonObject = {"type": "function_call", "call_id": "c", "name": "a", "arguments": "{}"}
    thought: JsonObject = {"type": "reasoning", "id": "rs_1", "summary": []}
    asked = body(USER, call, thought, {**output("c"), "id": "o"})
    assert "without its required following item" in says(Provider(texts(1)), asked)


def test_reasoning_with_what_followed_it_is_accepted() -> None:
    thought: JsonObject = {"type": "reasoning", "id": "rs_1", "summary": []}
    said: JsonObject = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    respond(Provider(texts(1)), body(USER, thought, {**thought, "id": "rs_2"}, said, USER))


def test_an_item_comes_once() -> None:
    provider = Provider(texts(2))
    twice: JsonObject = {**USER, "id": "msg_x"}
    assert says(provider, body(twice, twice)).startswith("Duplicate item found with id msg_x.")
    (made,) = array(respond(provider, body()), "output")
    assert isinstance(made, dict)
    assert "Duplicate item found with id msg_1" in says(provider, after("resp_1", made, USER))


def test_a_reference_stands_for_its_item() -> None:
    provider = Provider(texts(2))
    respond(provider, body())
    respond(provider, body({"type": "item_reference", "id": "msg_1"}, USER))
    data = array(provider.input_items("resp_2").body, "data")
    assert [obj({"": item}, "").get("role") for item in data] == ["user", "assistant"]


def test_a_reference_to_nothing_is_refused() -> None:
    found = Provider(texts(1)).create(body({"id": "msg_x"}))
    assert isinstance(found, Answer)
    assert (found.status, refused(found)["message"]) == (404, "Item with id 'msg_x' not found.")


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"input": "Hi."}, "model", "missing_required_parameter"),
        ({"model": "m"}, "input", "missing_required_parameter"),
        ({"model": "m", "input": 7}, "input", None),
        ({"model": "m", "input": ["Hi."]}, "input", None),
        ({"model": "m", "input": "Hi.", "tool_choice": "required"}, "tool_choice", None),
        (
            {"model": "m", "input": "Hi.", "conversation": "c"},
            "conversation",
            "unsupported_parameter",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    asked: JsonObject, param: str, code: str | None
) -> None:
    found = refused(Provider(texts(1)).create(asked))
    assert (found["param"], found["code"]) == (param, code)


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_a_harmless_tool_choice_needs_no_tools(choice: str | None) -> None:
    respond(Provider(texts(1)), body(tool_choice=choice))


def test_a_refusal_takes_nothing_from_the_script() -> None:
    provider = Provider(texts(1))
    refused(provider.create({"input": "Hi."}))
    assert provider.left == 1


def test_without_checks_whatever_is_asked_is_answered_in_order() -> None:
    provider = Provider(texts(2), checks=False)
    respond(provider, {"input": 7})
    respond(provider, after("resp_x", output("call_x"), {"type": "item_reference", "id": "x"}))


# -- the script ----------------------------------------------------------------------------


def test_a_script_that_is_over_says_so() -> None:
    found = refused(Provider([]).create(body()))
    assert found["code"] == "script_exhausted"
    assert found["message"] == "The script has no more entries: this is request 1."


def test_an_entry_may_look_at_the_request() -> None:
    def shout(asked: JsonObject) -> Reply:
        return scripts.text(str(asked["input"]).upper())

    made = respond(Provider([shout]), {"model": "m", "input": "hello"})
    assert "HELLO" in repr(made["output"])


def test_an_error_of_the_script_is_answered_with_its_headers() -> None:
    reply = Reply(status=429, body={"error": {}}, retry_after=1.5, headers={"x-a": "b"})
    found = Provider([reply]).create(body())
    assert isinstance(found, Answer)
    assert found.headers == {"x-a": "b", "retry-after": "1.5"}


def test_a_refused_upgrade_waits_for_an_upgrade_and_no_request_waits_for_it() -> None:
    provider = Provider([scripts.refuse_upgrade(503), *texts(1), scripts.refuse_upgrade()])
    refusing = provider.upgrade()
    assert refusing is not None
    assert refusing.status == 503
    assert provider.upgrade() is None
    respond(provider, body())
    assert refused(provider.create(body()))["code"] == "script_exhausted"
    assert provider.upgrade() is None


def test_another_script_can_be_played_and_what_is_stored_stays() -> None:
    provider = Provider(texts(1))
    respond(provider, body())
    provider.play([scripts.text("Other.")])
    assert "Other." in repr(respond(provider, after("resp_1"))["output"])


def test_ids_that_a_client_names_are_not_made_up_again() -> None:
    provider = Provider(texts(1), checks=False)
    made = respond(provider, after("resp_1", {"type": "message", "id": "msg_1", "role": "user"}))
    (item,) = array(made, "output")
    assert isinstance(item, dict)
    assert (made["id"], item["id"]) == ("resp_2", "msg_2")


# -- whole responses and recorded events ---------------------------------------------------

WHOLE: JsonObject = {
    "id": "resp_r",
    "object": "response",
    "status": "completed",
    "output": [{"type": "function_call", "id": "fc_r", "call_id": "c", "name": "a"}],
}


def test_a_whole_response_is_streamed_and_kept() -> None:
    provider = Provider([Reply(body=WHOLE), *texts(1)])
    assert respond(provider, body()) == WHOLE
    assert "call c" in says(provider, after("resp_r"))


def test_a_recorded_stream_is_sent_as_it_is_and_kept() -> None:
    recorded: tuple[JsonObject, ...] = (
        {"type": "response.created", "response": {"id": "resp_r"}},
        {"type": "response.completed", "response": {**WHOLE, "output": None}},
    )
    provider = Provider([Reply(events=recorded), *texts(1)])
    assert run(provider.create(body())) == [Send(event) for event in recorded]
    respond(provider, after("resp_r"))


def test_a_recorded_response_that_was_not_stored_is_not_kept() -> None:
    provider = Provider([Reply(body={**WHOLE, "store": False})])
    respond(provider, body(), connection="a")
    assert refused(provider.retrieve("resp_r"))
    assert provider.remembers("a", "resp_r")


@pytest.mark.parametrize("end", [{"type": "error", "message": "x"}, {"type": "response.created"}])
def test_a_stream_that_never_says_what_it_ends_with_leaves_nothing(end: JsonObject) -> None:
    provider = Provider([Reply(events=(end,))])
    found = provider.create(body(), connection="a")
    assert run(found) == [Send(end)]
    assert isinstance(found, Generation)
    assert found.response is None
    assert not provider.remembers("a", "")


# -- faults --------------------------------------------------------------------------------


def whole() -> list[Step]:
    return run(Provider(texts(1)).create(body()))


@pytest.mark.parametrize("after", [0, 1, 5, 99])
def test_faults_come_after_so_many_frames(after: int) -> None:
    def steps(fault: Callable[[Reply], Reply]) -> list[Step]:
        return run(Provider([fault(texts(1)[0])]).create(body()))

    assert steps(lambda reply: reply.but(cut_after=after)) == [*whole()[:after], Cut()]
    assert steps(lambda reply: reply.but(stall_after=after)) == [*whole()[:after], Stall()]
    garbled = steps(lambda reply: reply.but(malformed_after=after))
    assert isinstance(garbled[min(after, len(whole()))], Garble)
    assert [step for step in garbled if isinstance(step, Send)] == whole()


def test_a_stream_may_end_without_its_terminal_frame() -> None:
    found = Provider([texts(1)[0].but(no_terminal=True)]).create(body())
    assert isinstance(found, Generation)
    assert not found.terminates
    assert run(found) == whole()[:-1]


# -- both shapes of an error ---------------------------------------------------------------


def test_a_refusal_is_nested_on_a_websocket_with_its_status_and_headers() -> None:
    plain = refusal("No.", code="c")
    assert answers.frame(plain) == {"type": "error", "status": 400, "error": plain.body["error"]}
    limited = Answer(status=429, body={"error": {"message": "m"}}, headers={"retry-after": "2"})
    assert answers.frame(limited)["error"] == {"message": "m", "headers": {"retry-after": "2"}}


def test_a_refusal_that_is_no_error_object_is_nested_all_the_same() -> None:
    assert answers.frame(Answer(status=502, body={"error": "bad gateway"}))["error"] == {
        "message": "bad gateway"
    }
    assert answers.frame(Answer(status=502, body={"message": "bad"}))["error"] == {"message": "bad"}


def test_a_flat_error_of_a_stream_is_nested_on_a_websocket() -> None:
    flat: JsonObject = {"type": "error", "code": "c", "message": "m", "sequence_number": 3}
    assert answers.nested(flat) == {
        "type": "error",
        "sequence_number": 3,
        "status": 500,
        "error": {"type": "server_error", "code": "c", "message": "m"},
    }
    nested = answers.nested(flat)
    assert answers.nested(nested) == nested
    assert answers.nested({"type": "response.created"}) == {"type": "response.created"}


# -- the echo ------------------------------------------------------------------------------

TOOLS: Json = [{"type": "function", "name": "refund"}, {"type": "function", "name": "look"}]


def said(asked: JsonObject, playable: Playable = None) -> str:
    return repr(respond(Provider(playable), asked)["output"])


def test_the_echo_repeats_what_was_said() -> None:
    assert "Hello." in said(body())
    assert "Good day." in said({"model": "m", "input": "Good day."})
    assert "…" in said(body({"role": "developer", "content": "Be brief."}))


def test_the_echo_calls_what_it_is_told_to_call() -> None:
    provider = Provider(None)
    asked = 'call refund {"order": "7"}\ncall look\ncall nobody'
    calls = array(respond(provider, {"model": "m", "input": asked, "tools": TOOLS}), "output")
    found = [(obj({"": c}, "")["name"], obj({"": c}, "")["arguments"]) for c in calls]
    assert found == [("refund", '{"order": "7"}'), ("look", "{}")]
    rich: JsonObject = {**output("call_2"), "output": [{"type": "input_text", "text": "x"}]}
    told = repr(respond(provider, after("resp_1", output("call_1"), rich))["output"])
    assert "The tool said: ok" in told
    assert "input_text" in told


def test_the_echo_calls_nothing_that_the_request_does_not_have() -> None:
    assert "call refund" in said({"model": "m", "input": "call refund"})


@pytest.mark.parametrize("odd", [["response.completed"], {}, None, 7])
def test_an_event_of_no_type_at_all_ends_nothing(odd: Json) -> None:
    assert not ends({"type": odd})
    assert ends({"type": "response.completed"})
