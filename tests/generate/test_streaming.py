"""Text streams: however tokens cut the text, the same comes out, and no part of a stop string."""

from hypothesis import given
from hypothesis import strategies as st

from glassbox.generate.streaming import TextStream

BYTES = [bytes([byte]) for byte in range(256)]


def run(pieces, stops):
    """(what was out after each token and at the end, the stream)."""
    stream, out = TextStream(pieces, stops), [""]
    for token in range(len(pieces)):
        out.append(out[-1] + stream.push(token))
        if stream.stopped:
            break
    out.append(out[-1] + stream.flush())
    return out, stream


def cut_at_stop(text, stops):
    """By brute force: the text before the stop string that is complete first, the longest of those."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


def cut(data, whole):
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:stop] for start, stop in zip([0, *at], [*at, len(whole)], strict=True)]


@given(st.data(), st.text("abab日🙂\n", max_size=20), st.lists(st.text("ab日", min_size=1, max_size=4), max_size=3))
def test_cuts_of_tokens_change_nothing_and_stop_strings_never_leak(data, text, stops):
    out, stream = run(cut(data, text.encode()), stops)
    assert out[-1] == cut_at_stop(text, stops)
    assert stream.stopped == (out[-1] != text)
    assert all(out[-1].startswith(earlier) for earlier in out)


@given(st.data(), st.binary(max_size=12))
def test_bytes_that_are_no_utf8_come_out_as_when_decoded_at_once(data, whole):
    out, stream = run(cut(data, whole), [])
    assert out[-1] == whole.decode("utf-8", "replace")
    assert stream.sent == stream.seen == len(out[-1])


def test_text_waits_only_while_it_may_be_a_stop_string():
    out, stream = run([b"x", b"a", b"b", b"a", b"b", b"y"], ["abac"])
    assert out == ["", "x", "x", "x", "x", "xab", "xababy", "xababy"]
    assert not stream.stopped


def test_a_character_of_four_tokens_waits_for_the_last():
    stream = TextStream(BYTES)
    assert [stream.push(byte) for byte in "🙂!".encode()] == ["", "", "", "🙂", "!"]
    assert stream.push(0xF0) == ""
    assert (stream.seen, stream.sent) == (3, 2)
    assert stream.flush() == "\N{REPLACEMENT CHARACTER}"


def test_an_id_without_text_gives_none():
    assert TextStream([b"a", b""]).push(1) == TextStream([b"a"]).push(5) == ""
