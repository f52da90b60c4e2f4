import gzip

import pytest

from pilothouse.events.errors import QueryRefused
from pilothouse.storage.content_encoding import decode_body, encode_body

BODY = b"loss 2.5\n" * 1000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_what_is_encoded_can_be_decoded(encoding: str) -> None:
    packed, named = encode_body(BODY, encoding)
    assert named == encoding
    assert len(packed) < len(BODY)
    assert decode_body(packed, encoding, len(BODY)) == BODY


def test_the_first_known_encoding_is_taken() -> None:
    assert encode_body(BODY, "br, gzip;q=0, deflate;q=0.5, gzip")[1] == "deflate"
    assert encode_body(BODY, "br") == (BODY, "")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
@pytest.mark.parametrize("body", [b"", b"1\n"])
def test_small_and_empty_bodies_are_encoded_too(encoding: str, body: bytes) -> None:
    packed, named = encode_body(body, encoding)
    assert named == encoding
    assert decode_body(packed, encoding, 10) == body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
@pytest.mark.parametrize("frames", [2, 5, 3_000])
def test_a_body_of_many_frames_is_decoded_to_its_end(encoding: str, frames: int) -> None:
    bodies = [b"%d\n" % number * (20_000 if frames < 10 else 1) for number in range(frames)]
    packed, whole = b"".join(encode_body(body, encoding)[0] for body in bodies), b"".join(bodies)
    assert decode_body(packed, encoding, len(whole)) == whole
    with pytest.raises(QueryRefused):
        decode_body(packed, encoding, len(whole) - 1)
    for damaged in (packed[:-1], packed + b"?"):
        with pytest.raises(QueryRefused):
            decode_body(damaged, encoding, len(whole))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_body_that_grows_over_the_limit_is_refused(encoding: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        decode_body(encode_body(BODY, encoding)[0], encoding, 100)
    assert refused.value.code == 229


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_a_body_that_is_not_what_it_says_is_refused(encoding: str) -> None:
    with pytest.raises(QueryRefused):
        decode_body(BODY, encoding, 10**6)


def test_a_body_that_ends_too_early_is_refused() -> None:
    with pytest.raises(QueryRefused, match="too early"):
        decode_body(gzip.compress(BODY)[:-20], "gzip", 10**6)


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(QueryRefused, match="snappy"):
        decode_body(BODY, "snappy", 10**6)
