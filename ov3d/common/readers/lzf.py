"""LZF, the compression of PCD files: runs of plain bytes, and copies of earlier output.

A control byte c begins each piece.

    c < 32       c + 1 plain bytes follow
    otherwise    length (c >> 5) + 2 (where c >> 5 is 7, the next byte is added to it), then one byte b:
                 copy that many bytes from (c & 31) * 256 + b + 1 bytes back; the copy may overlap itself

Described in Marc Lehmann's liblzf.
"""

from __future__ import annotations


def decompress(data: bytes, size: int) -> bytes:
    """Undo LZF.

    Args:
        data: the compressed bytes.
        size: size of the result in bytes.

    Raises:
        ValueError: the data end too early, refer to bytes before the start, or unpack to another size.
    """
    out = bytearray()
    at, end = 0, len(data)
    try:
        while at < end:
            control = data[at]
            at += 1
            if control < 32:
                if at + control + 1 > end:
                    raise ValueError("a run of plain bytes is truncated")
                out += data[at : at + control + 1]
                at += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += data[at]
                    at += 1
                length += 2
                distance = ((control & 31) << 8) + data[at] + 1
                at += 1
                _copy(out, distance, length)
            if len(out) > size:
                raise ValueError(f"it holds more than {size} bytes")
    except IndexError:
        raise ValueError("a copy is truncated") from None
    if len(out) != size:
        raise ValueError(f"it holds {len(out)} bytes, not {size}")
    return bytes(out)


def _copy(out: bytearray, distance: int, length: int) -> None:
    start = len(out) - distance
    if start < 0:
        raise ValueError("a copy begins before the data")
    piece = out[start : start + length]
    while len(piece) < length:  # the copy overlaps itself, so the bytes between repeat
        piece += piece[: length - len(piece)]
    out += piece
