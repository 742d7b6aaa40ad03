"""What callers pass as input, and the items it becomes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseInputImage, ResponseOutputMessage

from turnlog.canonical import JsonObject, dumps
from turnlog.errors import InvalidInput
from turnlog.inputs import Part, check_parts, file, image, input_digest, to_items
from turnlog.ports import Profile

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
PDF = b"%PDF-1.7 x"
AUDIO: JsonObject = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


def message(*content: JsonObject) -> JsonObject:
    return {"type": "message", "role": "user", "content": list(content)}


def said(words: str) -> JsonObject:
    return {"type": "input_text", "text": words}


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_text_becomes_a_user_message() -> None:
    assert to_items("Hi") == (message(said("Hi")),)


def test_parts_that_stand_together_are_one_message_and_items_stay_apart() -> None:
    answer: JsonObject = {"type": "function_call_output", "call_id": "c1", "output": "7"}
    developer: JsonObject = {"role": "developer", "content": "Be brief."}
    picture = image(PNG)
    found = to_items(developer, "Look", [picture, AUDIO], (answer, ["Now"]), said("go"))
    assert found == (
        developer,
        message(said("Look"), picture.json, AUDIO),
        answer,
        message(said("Now"), said("go")),
    )


def test_openai_models_are_items_and_parts_with_what_was_set_in_them() -> None:
    output: JsonObject = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
        "phase": "final_answer",
    }
    part = ResponseInputImage(type="input_image", detail="low", image_url="https://x/y.png")
    assert to_items(ResponseOutputMessage.model_validate(output), part) == (
        output,
        message({"type": "input_image", "detail": "low", "image_url": "https://x/y.png"}),
    )


def test_items_are_copies() -> None:
    given_item = {"role": "user", "content": "before"}
    (item,) = to_items(given_item)
    given_item["content"] = "after"
    assert item["content"] == "before"


@pytest.mark.parametrize("parts", [(), ("",), ([],), ("Hi", "")])
def test_an_empty_message_is_refused(parts: tuple[object, ...]) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        to_items(*parts)


@pytest.mark.parametrize(
    ("part", "named"),
    [(7, "int"), (None, "NoneType"), (b"raw", "bytes"), ({"id": "x"}, '"type"'), ({}, "nothing")],
)
def test_what_is_no_input_is_named(part: object, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        to_items("Hi", part)


@given(st.lists(st.text(min_size=1), min_size=1))
def test_every_text_reaches_the_message_in_order(texts: list[str]) -> None:
    assert to_items(*texts) == (message(*map(said, texts)),)
    assert to_items(texts) == to_items(*texts)


# -- pictures and files --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"GIF87a..", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM....", "image/bmp"),
    ],
)
def test_a_picture_is_recognised_by_its_first_bytes(data: bytes, kind: str) -> None:
    assert image(data).json == {"type": "input_image", "image_url": data_url(data, kind)}


def test_a_picture_is_read_from_a_path_and_typed_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_bytes(b"<svg/>")
    assert image(path, detail="high").json == {
        "type": "input_image",
        "image_url": data_url(b"<svg/>", "image/svg+xml"),
        "detail": "high",
    }
    assert image(str(path)) == image(path)
    assert image(b"?", media_type="image/x-raw").json["image_url"] == data_url(b"?", "image/x-raw")


def test_an_address_is_passed_on() -> None:
    for url in ("https://x/y.png", "HTTP://x/y.png", "data:image/png;base64,AA=="):
        assert image(url).json == {"type": "input_image", "image_url": url}


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    for source in (b"words", PDF, tmp_path / "notes.txt"):
        with pytest.raises(InvalidInput, match="media_type"):
            image(source)


@pytest.mark.parametrize("read", [image, file])
@pytest.mark.parametrize("name", ["missing.png", "nul\0.png"])
def test_a_file_that_cannot_be_read_is_named(
    read: Callable[[str], Part], name: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="cannot read the file"):
        read(str(tmp_path / name))  # pyright: ignore[reportCallIssue]


def test_files_of_every_source(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(PDF)
    url = data_url(PDF, "application/pdf")
    document = {"type": "input_file", "filename": "a.pdf", "file_data": url}
    assert file(path).json == document
    assert file(PDF, name="a.pdf").json == document
    assert file(PDF).json["filename"] == "file.pdf"
    assert file(b"\0?").json["file_data"] == data_url(b"\0?", "application/octet-stream")
    assert file(b"a,b", media_type="text/csv").json["filename"] == "file.csv"
    assert file("https://x/a.pdf").json == {"type": "input_file", "file_url": "https://x/a.pdf"}
    assert file("file-abc123").json == {"type": "input_file", "file_id": "file-abc123"}
    assert file(url).json == {"type": "input_file", "filename": "file.pdf", "file_data": url}


def test_a_path_wins_over_a_file_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file-notes").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert file("file-notes").json["filename"] == "file-notes"


def test_an_office_document_is_told_from_a_zip_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"PK\x03\x04...")
    assert "wordprocessingml" in str(file(path).json["file_data"])
    assert str(file(path.read_bytes()).json["file_data"]).startswith("data:application/zip;")


def test_a_repr_shows_what_it_is_and_not_its_bytes() -> None:
    assert repr(image(PNG)) == "Part(label=\"image('image/png')\")"
    assert len(repr(image("https://x/" + "y" * 200))) < 90


def test_w66_a_picture_is_the_same_bytes_in_every_request() -> None:
    picture = image(PNG)
    assert dumps(to_items("a", picture)) == dumps(to_items("a", picture))
    assert dumps(to_items("a", image(PNG))) == dumps(to_items("a", picture))


# -- what a provider can take --------------------------------------------------------------

DEAF = Profile(name="deaf", unsupported=frozenset({"input_audio"}))


def test_w65_a_part_that_the_provider_cannot_take_is_named() -> None:
    items = to_items({"role": "user", "content": "a"}, "Listen", AUDIO)
    with pytest.raises(InvalidInput, match=r"deaf cannot take an input_audio.*item 2"):
        check_parts(items, DEAF)
    check_parts(items, Profile(name="hears"))
    check_parts(to_items("Read"), DEAF)


def test_w65_parts_in_the_output_of_a_tool_are_looked_at_too() -> None:
    item: JsonObject = {"type": "function_call_output", "call_id": "c", "output": [AUDIO]}
    with pytest.raises(InvalidInput, match="function_call_output"):
        check_parts([item], DEAF)


def test_the_digest_tells_inputs_and_settings_apart() -> None:
    hi = input_digest(to_items("Hi"), {})
    assert hi == input_digest(to_items("Hi"), {})
    assert hi != input_digest(to_items("Ho"), {})
    assert hi != input_digest(to_items("Hi"), {"temperature": 0})
