"""What is sent of steps, byte for byte: the archive on the real engine is tests/property/test_archive.py."""

from array import array

import pytest

from pilothouse.storage.native import Arrays, native_block, packed


def test_a_block_is_its_columns_one_after_another() -> None:
    block = native_block({"a": "Int64", "b": "LowCardinality(String)"}, {"a": [1, -2], "b": ["x", "yz"]})
    assert block == b"\x02\x02\x01a\x05Int64" + (1).to_bytes(8, "little") + (-2).to_bytes(8, "little", signed=True) + (
        b"\x01b\x06String\x01x\x02yz"
    )


def test_arrays_are_their_ends_and_then_all_their_elements() -> None:
    column = Arrays()
    column.extend(2, 2, packed(array("H", (7, 8))) * 2)
    column.extend(0, 2, b"")
    column.extend(1, 1, packed(array("H", (9,))))
    ends = b"".join(end.to_bytes(8, "little") for end in (2, 4, 4, 4, 5))
    elements = bytes([7, 0, 8, 0, 7, 0, 8, 0, 9, 0])
    assert native_block({"n": "Array(UInt16)"}, {"n": column}).endswith(b"Array(UInt16)" + ends + elements)


def test_what_is_long_has_a_long_length() -> None:
    assert native_block({"s": "String"}, {"s": ["é" * 100]}).endswith(b"\xc8\x01" + "é".encode() * 100)


@pytest.mark.parametrize("kind, value", [("UInt16", 2**16), ("Int64", 2**63), ("Int32", "x")])
def test_what_does_not_fit_its_column_is_refused(kind: str, value: object) -> None:
    with pytest.raises((OverflowError, TypeError)):
        native_block({"c": kind}, {"c": [value]})
