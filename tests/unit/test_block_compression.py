import struct

import lz4.block
import pytest
from backports import zstd
from clickhouse_cityhash.cityhash import CityHash128

from pilothouse.events.errors import QueryRefused
from pilothouse.storage.block_compression import BLOCK_BYTES, compress_blocks, decompress_blocks

BY_CLICKHOUSE = bytes.fromhex(
    "b3d3efa80af56a7d516ac499a6fc34de82ae0000004001000013000100130108001302080013030800130408001305080013060800130708001308"
    "080013090800130a0800130b0800130c0800130d0800130e0800130f0800131008001311080013120800131308001314080013150800131608"
    "00131708001318080013190800131a0800131b0800131c0800131d0800131e0800131f0800132008001321080013220800132308001324080013"
    "25080013260800802700000000000000"
)
"""A column's file as ClickHouse 26.9 wrote it: the numbers 0 to 39 as UInt64, in one LZ4 block."""

PLAIN = b"loss 2.5\n" * 1000


def block(data: bytes, plain_size: int, method: int = 0x82, size: int | None = None) -> bytes:
    """A block whose checksum is right, whatever it claims."""
    body = struct.pack("<BII", method, 9 + len(data) if size is None else size, plain_size) + data
    number = CityHash128(body)
    return struct.pack("<QQ", number >> 64, number & (2**64 - 1)) + body


def refusal_of(body: bytes, limit: int = 10**6) -> tuple[int, str]:
    with pytest.raises(QueryRefused) as refused:
        decompress_blocks(body, limit)
    return refused.value.code, str(refused.value)


def test_a_block_that_clickhouse_wrote_is_read() -> None:
    assert decompress_blocks(BY_CLICKHOUSE, 320) == struct.pack("<40Q", *range(40))


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 1])
def test_what_is_compressed_can_be_read_in_blocks_of_a_servers_size(size: int) -> None:
    plain = (PLAIN * (size // len(PLAIN) + 1))[:size]
    packed = compress_blocks(plain)
    assert decompress_blocks(packed, size) == plain
    count, start = 0, 0
    while start < len(packed):
        start, count = start + 16 + struct.unpack_from("<I", packed, start + 17)[0], count + 1
    assert count == -(-size // BLOCK_BYTES)


def test_blocks_of_every_method_a_client_may_choose_are_read() -> None:
    by_method = {
        0x02: PLAIN,
        0x82: lz4.block.compress(PLAIN, store_size=False),
        0x90: zstd.compress(PLAIN),
    }
    body = b"".join(block(data, len(PLAIN), method) for method, data in by_method.items())
    assert decompress_blocks(body, 3 * len(PLAIN)) == PLAIN * 3
    assert refusal_of(block(PLAIN, len(PLAIN), 0x91))[0] == 89


@pytest.mark.parametrize("place", [0, 15, 16, 17, 21, 25, len(BY_CLICKHOUSE) - 1])
def test_a_flipped_bit_anywhere_is_seen(place: int) -> None:
    broken = bytearray(BY_CLICKHOUSE)
    broken[place] ^= 1
    code, message = refusal_of(bytes(broken))
    assert code in (33, 40)
    assert "at byte 0" in message


@pytest.mark.parametrize("left", [1, 15, 24, 25, len(BY_CLICKHOUSE) - 1])
def test_a_body_that_ends_inside_a_block_is_told_from_a_damaged_one(left: int) -> None:
    code, message = refusal_of(BY_CLICKHOUSE + BY_CLICKHOUSE[:left])
    assert code == 33
    assert f"at byte {len(BY_CLICKHOUSE)}" in message


def test_a_block_that_claims_gigabytes_is_refused_by_its_claim() -> None:
    assert refusal_of(block(b"\x1f" + b"\xff" * 100, 2**32 - 1))[0] == 229
    thousand_small = block(lz4.block.compress(bytes(10_000), store_size=False), 10_000) * 1000
    assert refusal_of(thousand_small, limit=10**6)[0] == 229


@pytest.mark.parametrize("method", [0x02, 0x82, 0x90])
@pytest.mark.parametrize("claim", [len(PLAIN) - 1, len(PLAIN) + 1])
def test_a_block_that_holds_more_or_less_than_it_claims_is_refused(method: int, claim: int) -> None:
    data = {0x02: PLAIN, 0x82: lz4.block.compress(PLAIN, store_size=False), 0x90: zstd.compress(PLAIN)}[method]
    assert refusal_of(block(data, claim, method))[0] == 271


@pytest.mark.parametrize("data", [b"", b"\xff" * 50, b"SELECT 1"])
@pytest.mark.parametrize("method", [0x82, 0x90])
def test_a_block_of_nonsense_with_a_right_checksum_is_refused(data: bytes, method: int) -> None:
    assert refusal_of(block(data, 1000, method))[0] == 271


def test_a_head_that_claims_less_than_itself_is_refused() -> None:
    assert refusal_of(block(b"", 0, size=3))[0] == 246
