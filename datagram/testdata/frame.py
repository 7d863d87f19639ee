#!/usr/bin/env python3
"""Decodes frames, as docs/frame.md has them, with Python's standard library.

It is the second decoder, written from that page: a test holds the first one to
it. It reads datagrams from standard input, one a line in hexadecimal digits,
and writes a JSON object for each: the header and the items, or why it is
refused. Items are missing where the body is compressed, and where other
fragments are still to come. Arguments are pre-shared keys in hexadecimal digits.
"""

import hashlib
import hmac
import json
import sys

KINDS = {1: "events", 2: "agent_init", 3: "agent_stats"}
COMPRESSIONS = ["none", "s2", "zstd"]
MASK = (1 << 64) - 1
LAST = (1 << 48) - 1


class Refused(Exception):
    """The datagram is not decodable, for the reason given."""


class Reader:
    """Takes fields from the front of some bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Refused("bad_header")
        self.at += n
        return self.data[self.at - n:self.at]

    def integer(self, n):
        return int.from_bytes(self.take(n), "big")

    def varint(self, shortest=True):
        value = 0
        for i in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if value > MASK or (shortest and i > 0 and byte == 0):
                    raise Refused("bad_header")
                return value
        raise Refused("bad_header")


# CRC-32C


def crc_table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


CRC = list(crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


# HKDF-SHA-256 (RFC 5869)


def hkdf(key, salt, info, length):
    secret = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    out, block = b"", b""
    while len(out) < length:
        block = hmac.new(secret, block + info + bytes([len(out) // 32 + 1]), hashlib.sha256).digest()
        out += block
    return out[:length]


# AES-256 (FIPS 197), encryption only


def times2(x):
    return (x << 1 ^ (0x1B if x & 0x80 else 0)) & 0xFF


def make_sbox():
    power, log, x = [0] * 255, [0] * 256, 1
    for i in range(255):
        power[i], log[x] = x, i
        x ^= times2(x)
    for byte in range(256):
        inverse = power[-log[byte] % 255] if byte else 0
        out = 0x63
        for turn in range(5):
            out ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
        yield out


SBOX = list(make_sbox())


def expand_key(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = times2(rcon)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[-8], word)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def encrypt_block(keys, block):
    state = [a ^ b for a, b in zip(block, keys[0])]
    for i, key in enumerate(keys[1:], 1):
        state = [SBOX[state[(j + 4 * (j % 4)) % 16]] for j in range(16)]  # bytes, then rows
        if i < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = state[c:c + 4]
                every = a[0] ^ a[1] ^ a[2] ^ a[3]
                mixed += [a[r] ^ every ^ times2(a[r] ^ a[(r + 1) % 4]) for r in range(4)]
            state = mixed
        state = [a ^ b for a, b in zip(state, key)]
    return bytes(state)


# GCM (NIST SP 800-38D)


def ghash_times(x, h):
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= h
        h = h >> 1 ^ (0xE1 << 120 if h & 1 else 0)
    return z


def gcm_open(key, nonce, data, additional):
    """Returns the plaintext, or None if the tag is not the right one."""
    cipher, tag = data[:-16], data[-16:]
    keys = expand_key(key)
    h = int.from_bytes(encrypt_block(keys, bytes(16)), "big")
    y = 0
    for part in (additional, cipher):
        for i in range(0, len(part), 16):
            y = ghash_times(y ^ int.from_bytes(part[i:i + 16].ljust(16, b"\0"), "big"), h)
    y = ghash_times(y ^ (len(additional) * 8 << 64 | len(cipher) * 8), h)
    stream = [encrypt_block(keys, nonce + i.to_bytes(4, "big")) for i in range(1, len(cipher) // 16 + 3)]
    if not hmac.compare_digest(bytes(a ^ b for a, b in zip(y.to_bytes(16, "big"), stream[0])), tag):
        return None
    return bytes(a ^ b for a, b in zip(cipher, b"".join(stream[1:])))


# Frames


def parse_header(data):
    """Returns the header's fields and how long it is."""
    r = Reader(data)
    r.take(3)
    flags, content = r.integer(1), r.integer(1)
    h = {
        "kind": KINDS[content & 15], "compression": COMPRESSIONS[content >> 4],
        "sealed": bool(flags & 1), "json": bool(flags & 2), "goodbye": bool(flags & 4),
        "stream": r.take(8).hex(), "record": r.take(8).hex(), "padding": r.integer(2),
    }
    if flags & 16:
        h["dictionary"] = r.take(4).hex()
    if flags & 1:
        h["key"], h["salt"] = r.take(4).hex(), r.take(16).hex()
    if flags & 32:
        host = r.take(r.integer(1))
        if not flags & 1 or not 1 <= len(host) <= 96 or not all(33 <= byte <= 126 for byte in host):
            raise Refused("bad_header")
        h["host"] = host.decode()
    for name in ("datagram", "first", "count", "excluded", "dropped", "refused"):
        h[name] = r.varint()
    field = r.varint()
    d = field >> 1 ^ -(field & 1)
    h["seen"] = (d + h["first"] - 1 + h["excluded"] + h["dropped"]) & MASK
    fragment = bool(flags & 8)
    if fragment:
        h["index"], h["total"] = r.varint(), r.varint()
    event = h["kind"] == "events"
    if (h["datagram"] == 0 or h["first"] == 0 or h["first"] + h["count"] - 1 > LAST
            or any(h[name] > LAST for name in ("datagram", "seen", "excluded", "dropped", "refused"))
            or event != (h["count"] > 0) or h["count"] > 1 << 14
            or fragment and (event and h["count"] != 1 or not 2 <= h["total"] <= 65535
                             or h["index"] >= h["total"] or h["datagram"] <= h["index"])
            or h["goodbye"] and h["kind"] != "agent_stats"
            or flags & 16 and h["compression"] == "none"
            or h["padding"] >= len(data) - r.at):
        raise Refused("bad_header")
    return h, r.at


def open_frame(data, keys):
    """Returns the header and the body of a datagram."""
    if len(data) < 3 or data[:2] != b"\xd7\x54":
        raise Refused("not_a_frame")
    if data[2] != 1:
        raise Refused("unknown_version")
    if len(data) < 27:
        raise Refused("bad_header")
    if data[3] >> 6 or data[4] & 15 not in KINDS or data[4] >> 4 >= len(COMPRESSIONS):
        raise Refused("unknown_flag")
    if not data[3] & 1:
        if keys:
            raise Refused("not_sealed")
        if crc32c(data[:-4]) != int.from_bytes(data[-4:], "big"):
            raise Refused("bad_check")
        h, start = parse_header(data[:-4])
        return h, data[start:len(data) - 4 - h["padding"]]
    h, start = parse_header(data[:-16])
    if h["key"] not in keys:
        raise Refused("unknown_key")
    info = b"tetracast frame 1 stream key" + bytes.fromhex(h["stream"])
    secret = keys[h["key"]]
    if "host" in h:
        secret = hkdf(secret, b"", b"tetracast frame 1 host key " + h["host"].encode(), 32)
    key = hkdf(secret, bytes.fromhex(h["salt"]), info, 32)
    nonce = bytes(4) + h["datagram"].to_bytes(8, "big")
    plain = gcm_open(key, nonce, data[start:], data[:start])
    if plain is None:
        raise Refused("bad_check")
    return h, plain[:len(plain) - h["padding"]]


def items(h, body):
    """Returns the items of a body that is not compressed, or None if it is broken."""
    out, r = [], Reader(body)
    try:
        for _ in range(h["count"] or 1):
            out.append(r.take(r.varint(shortest=False)).hex())
    except Refused:
        return None
    return out if r.at == len(body) else None


def main():
    keys = {}
    for text in sys.argv[1:]:
        secret = bytes.fromhex(text)
        keys[hkdf(secret, b"", b"tetracast frame 1 key id", 4).hex()] = secret
    sets = {}
    for line in sys.stdin:
        try:
            h, body = open_frame(bytes.fromhex(line), keys)
        except Refused as why:
            print(json.dumps({"refused_as": str(why)}))
            continue
        if "total" in h:
            name = (h["stream"], h["datagram"] - h["index"])
            pieces = sets.setdefault(name, {})
            pieces[h["index"]] = body
            whole = len(pieces) == h["total"]
            if whole:
                body = b"".join(pieces[i] for i in range(h["total"]))
                del sets[name]
        else:
            whole = True
        if whole and h["compression"] == "none":
            h["items"] = items(h, body)
            if h["items"] is None:
                h["dropped_as"] = "broken"
        print(json.dumps(h))


if __name__ == "__main__":
    main()
