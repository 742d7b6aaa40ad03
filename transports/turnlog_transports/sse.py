"""Server-sent events between bytes and the data in them.

The one rule: nothing here does I/O, and the bytes may come in any pieces. It says the same as the
decoder of httpx2 does, which is built for whoever wants events one by one, with their names and
ids: a turn needs their data alone, and all of a piece at once, for a third of the CPU time.
"""

from __future__ import annotations

import codecs

_Decoder = codecs.getincrementaldecoder("utf-8-sig")


class Events:
    """The events of one stream. `too_large` says that one was larger than the limit, in bytes.

    Behind such an event nothing more is to be fed. The stream is UTF-8, whatever is declared, and
    may begin with a mark.
    """

    def __init__(self, limit: int) -> None:
        self.too_large = False
        self._limit = limit
        self._decoder = _Decoder(errors="replace")
        self._data: list[str] = []
        self._size = 0
        self._pieces: list[str] = []
        self._pending = 0
        self._return = ""

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that are whole now, without those that have none."""
        return self._read(self._decoder.decode(piece))

    def end(self) -> list[str]:
        """The same, where no more bytes come. What has no end is no event."""
        found = self._read(self._decoder.decode(b"", True))
        if self._return and not self.too_large:
            self._return = ""
            found += self._lines(["".join(self._pieces), ""])
        return found

    def _read(self, text: str) -> list[str]:
        text = self._return + text
        # A line feed behind a carriage return belongs to it, and may be still to come.
        self._return = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r")
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.split("\n")
        last = lines.pop()
        found: list[str] = []
        if lines:
            lines[0] = "".join((*self._pieces, lines[0]))
            self._pieces, self._pending = [], 0
            found = self._lines(lines)
        self._pieces.append(last)
        self._pending += _size(last)
        self.too_large = self.too_large or self._size + self._pending > self._limit
        return found

    def _lines(self, lines: list[str]) -> list[str]:
        found: list[str] = []
        data, size = self._data, self._size
        for line in lines:
            if not line:
                if data:
                    found.append(data[0] if len(data) == 1 else "\n".join(data))
                    data = []
                size = 0
            elif not line.startswith(":"):
                size += len(line) if line.isascii() else _size(line)
                if size > self._limit:
                    self.too_large = True
                    break
                if line.startswith("data:"):
                    data.append(line[6:] if line.startswith(" ", 5) else line[5:])
                elif line == "data":
                    data.append("")
        self._data, self._size = data, size
        return list(filter(None, found))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
