"""The command that tries an endpoint: what it prints, and what it exits with."""

import json

from turnlog_transports.simulator import Simulator

from .given import Desk

KEY = "sk-hush-hush"


async def test_what_is_well_is_a_table(desk: Desk) -> None:
    async with Simulator(key=KEY) as simulator:
        ran = await desk.aside(
            "doctor", "--base-url", simulator.base_url, "--profile", "openai", "--key", KEY
        )
    assert ran.code == 0, ran.err
    assert ran.lines[0].split() == ["CHECK", "FOUND"]
    assert f"address     ok  {simulator.base_url}, profile openai (as asked for)" in ran.lines
    assert "model       -   not tried: give --model (a few tokens)" in ran.lines
    assert KEY not in ran.out + ran.err


async def test_a_model_is_tried_too(desk: Desk) -> None:
    async with Simulator() as simulator:
        ran = await desk.aside(
            "doctor", "--base-url", simulator.base_url, "--profile", "openai", "--model", "gpt-5.5"
        )
        assert simulator.creates
    assert ran.code == 0, ran.out
    assert "model       ok  gpt-5.5 answers" in ran.lines
    assert "stored ids  ok  yes" in ran.lines


async def test_what_is_wrong_comes_with_what_to_do(desk: Desk) -> None:
    async with Simulator(key=KEY) as simulator:
        ran = await desk.aside(
            "doctor", "--base-url", simulator.base_url, "--profile", "openai", "--key", "sk-wrong"
        )
    assert ran.code == 1
    assert any(line.startswith("key        wrong  HTTP 401: ") for line in ran.lines)
    assert any(line.startswith("key: check the key (OPENAI_API_KEY, --key") for line in ran.lines)
    assert "sk-wrong" not in ran.out + ran.err


async def test_as_data(desk: Desk) -> None:
    async with Simulator() as simulator:
        ran = await desk.aside("doctor", "--base-url", simulator.base_url, "--json")
    (found,) = ran.json
    assert (found["usable"], found["transport"], found["profile"]) == (True, "http", "generic")
    assert {"name": "key", "ok": True, "said": "accepted", "fix": None} in json.loads(
        json.dumps(found["checks"])
    )


def test_without_a_key_it_says_so_and_goes_nowhere(desk: Desk) -> None:
    ran = desk.run("doctor")
    assert (ran.code, ran.lines[1]) == (
        1,
        "address  wrong  no key for openai: pass api_key=, text or a callable, or set"
        " OPENAI_API_KEY",
    )


def test_an_unknown_profile_is_wrong_usage(desk: Desk) -> None:
    ran = desk.run("doctor", "--profile", "opnai")
    assert ran.code == 2
    assert "there is no profile 'opnai'" in ran.err
