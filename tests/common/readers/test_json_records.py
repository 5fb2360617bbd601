"""Large JSON tables, read object by object in bounded memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ov3d.common.base.errors import DataError
from ov3d.common.readers import json_records
from ov3d.common.readers.json_records import records

ROWS = [
    {"token": "a" * 5, "values": [1.5, -2e-3, []], "said": 'a "quoted" ] } , é'},
    {},
    {"n": None, "deep": {"x": [{}]}},
]


@pytest.mark.parametrize("chunk", [200, 233, 351, 1 << 22])
@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff", " \n"])
def test_rows_come_whole_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None, mark: str
) -> None:
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    path = tmp_path / "table.json"
    path.write_text(mark + json.dumps(ROWS * 9, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(records(path)) == ROWS * 9


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(" [ \n ] ")
    assert list(records(tmp_path / "table.json")) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"token": 1}', "it does not begin with ["),
        ("", "it does not begin with ["),
        ("[", "it is cut short or damaged"),
        ('[{"a": 1},', "it is cut short or damaged"),
        ('[{"a": 1}, {"b"', "it is cut short or damaged"),
        ('[{"a": 1}, {"b" 2}]', "it is cut short or damaged"),
        ("[1, 2]", "it holds a int in place of an object"),
        ("[" * 100_000, "it is not JSON text"),
        (b'[{"a": "\xff"}]', "it is not JSON text"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match="table.json") as caught:
        list(records(path))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table.json cannot be read: No such file"):
        list(records(tmp_path / "table.json"))


def test_damage_in_a_large_table_does_not_gather_the_rest_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_records, "CHUNK", 100)
    path = tmp_path / "table.json"
    path.write_text('[{"a" 1},' + '{"a": 1},' * 1000)
    read: list[int] = []
    plain = Path.open

    def opened(self: Path, *args: object, **kwargs: object) -> object:
        file = plain(self, *args, **kwargs)  # type: ignore[call-overload]
        whole = file.read
        monkeypatch.setattr(file, "read", lambda size: read.append(size) or whole(size), raising=False)
        return file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(DataError, match="damaged"):
        list(records(path))
    assert sum(read) <= 200
