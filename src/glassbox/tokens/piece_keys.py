"""Keys of short byte strings, for the encoder's tables: up to 15 bytes as they are, longer ones by a hash."""

import numba
import numpy as np

INLINE = 15
"""Bytes of a piece that fit into its key, so that equal keys are equal pieces."""


@numba.njit(nogil=True, cache=True, inline="always")
def piece_key(data, i, size):  # type: ignore[no-untyped-def]
    """Two words: the bytes, or their hash and nothing; above bit 56 of the second the size (1 to 127)."""
    if size <= 8:
        return _word(data, i, size), np.uint64(size) << np.uint64(56)
    if size <= INLINE:
        return _word(data, i, 8), _word(data, i + 8, size - 8) | np.uint64(size) << np.uint64(56)
    return hash_bytes(data, i, size), np.uint64(size) << np.uint64(56)


@numba.njit(nogil=True, cache=True, inline="always")
def key_slot(low, high, slots) -> int:  # type: ignore[no-untyped-def]
    """Where to begin to look for a key; slots is a power of two."""
    value = (low ^ (high * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xC4CEB9FE1A85EC53)
    return np.int64(value >> np.uint64(33)) & (slots - 1)


@numba.njit(nogil=True, cache=True)
def hash_bytes(data, i, size):  # type: ignore[no-untyped-def]
    """64 bits from data[i:i + size]."""
    value = np.uint64(size)
    for first in range(i, i + size, 8):
        value = (value ^ _word(data, first, min(8, i + size - first))) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
    return value


@numba.njit(nogil=True, cache=True, inline="always")
def _word(data, i, size):  # type: ignore[no-untyped-def]
    """Up to 8 bytes as a little-endian number; one load where the buffer goes on."""
    value, start = np.uint64(0), np.uint64(i)  # unsigned: no check for negative indices, so that the loads are joined
    if i + 8 <= len(data):
        for k in range(8):
            value |= np.uint64(data[start + np.uint64(k)]) << np.uint64(8 * k)
        return value & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * size))
    for k in range(size):
        value |= np.uint64(data[start + np.uint64(k)]) << np.uint64(8 * k)
    return value
