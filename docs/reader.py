#!/usr/bin/env python3
"""A second reader of backup-kit archives, written from FORMAT.md alone.

    reader.py check ARCHIVE             reads and compares every byte
    reader.py list ARCHIVE              the parts, from the index
    reader.py extract ARCHIVE PATH      one part, to standard output

It needs Python 3.9 and its standard library; for zstd, Python 3.14 or the module `zstandard`.
Exit codes: 0 whole, 1 damaged or refused, 2 usage, 3 this Python cannot read the codec.
"""

import base64
import datetime
import hashlib
import json
import re
import struct
import sys
import zlib

MIB = 1 << 20
MAX_SEGMENT = 4 * MIB
MAX_OWN = 64 * MIB + 4096  # an index page, or the root
MAX_LINE = 1 << 30
MAX_DEPTH = 120
BLOCK = 512
END = bytes(2 * BLOCK)
HEAD = {"gzip": bytes.fromhex("1f8b08000000000000ff"), "zstd": b"", "none": b""}
TAIL = {"gzip": 10, "zstd": 0, "none": 0}
# What stands before and after the record of the trailer.
WRAPPING = {
    "gzip": (bytes.fromhex("1f8b08040000000000ffa400424ba000"), bytes.fromhex("03000000000000000000")),
    "zstd": (bytes.fromhex("502a4d18a0000000"), b""),
    "none": (b"", bytes(352)),
}
NUMBER = {"gzip": 1, "zstd": 2, "none": 0}
RECORD = struct.Struct("<8sIIQ16sqQQQ32sQQQ32s")
ELEMENT = {"f32": ("<f4", 4), "f16": ("<f2", 2), "u8": ("|u1", 1)}


class Damage(Exception):
    """The archive breaks a rule."""


class Unable(Exception):
    """This Python lacks something."""


def need(holds, what, *where):
    if not holds:
        raise Damage(what + (f" ({', '.join(map(str, where))})" if where else ""))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- Canonical JSON ---------------------------------------------------------------------------


def unique(pairs):
    members = dict(pairs)
    need(len(members) == len(pairs), "a JSON object has a name twice")
    return members


def parse(data, where):
    """One JSON text, which must be canonical to the byte."""

    def refused(text):
        raise Damage(f"a number that JSON does not have: {text} ({where})")

    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refused)
        need(canonical(value) == text, "JSON is not in canonical form", where)
    except (ValueError, RecursionError) as error:
        raise Damage(f"JSON cannot be read: {error} ({where})") from None
    return value


def document(data, where):
    """A JSON text that is a file of its own, closed by a line feed."""
    need(data.endswith(b"\n"), "a document does not end with a line feed", where)
    return parse(data[:-1], where)


def canonical(value, depth=0):
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        need(-(1 << 63) <= value < 1 << 64, "an integer has more than 64 bits")
        return str(value)
    if isinstance(value, float):
        return canonical_float(value)
    if isinstance(value, str):
        return canonical_string(value)
    need(depth < MAX_DEPTH, f"JSON is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return "[" + ",".join(canonical(item, depth + 1) for item in value) + "]"
    names = sorted(value, key=lambda name: name.encode("utf-8"))
    return "{" + ",".join(canonical_string(n) + ":" + canonical(value[n], depth + 1) for n in names) + "}"


SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def canonical_string(text):
    return '"' + re.sub(r'["\\\x00-\x1f]', lambda m: SHORT.get(m[0], f"\\u{ord(m[0]):04x}"), text) + '"'


def canonical_float(value):
    need(value - value == 0, "a float is too large")
    sign = "-" if str(value).startswith("-") else ""
    if value == 0:
        return sign + "0.0"
    # Python's shortest digits, as 0.d1d2…dk × 10^p.
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    p = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if 1 <= p <= 16:
        digits = digits.ljust(p, "0")
        return f"{sign}{digits[:p]}.{digits[p:] or '0'}"
    if -4 <= p <= 0:
        return f"{sign}0.{'0' * -p}{digits}"
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{p - 1}"


def member(value, name, kind, where):
    need(isinstance(value, dict) and name in value, f"the member {name!r} is missing", where)
    found = value[name]
    fits = isinstance(found, kind) and not (isinstance(found, bool) and kind is not bool)
    need(fits and not (kind is int and found < 0), f"the member {name!r} is wrong", where)
    return found


# --- Segments ---------------------------------------------------------------------------------


def unzstd(data, size):
    try:
        from compression import zstd  # Python 3.14

        stream = zstd.ZstdDecompressor()
        out = stream.decompress(data, size + 1)
        return out, stream.eof and not stream.unused_data
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise Unable("zstd needs Python 3.14 or the module `zstandard`") from None
    stream = zstandard.ZstdDecompressor().decompressobj()
    out = stream.decompress(data)
    return out, stream.eof and not stream.unused_data


def decompress(codec, data, size, where):
    """A segment whose hash was compared; it must give exactly `size` bytes."""
    if codec == "none":
        out, whole = data, True
    elif codec == "gzip":
        need(data.endswith(b"\x00\x00\xff\xff"), "a segment does not end with a full flush", where)
        stream = zlib.decompressobj(-15)
        try:
            out = stream.decompress(data, size + 1)
            rest = stream.unconsumed_tail
            # The flush itself gives no bytes: what is left of it must not, either.
            out += stream.decompress(rest, 1) if rest else b""
            whole = not stream.eof and not stream.unconsumed_tail
            # Where the mark is the end of a block, and not within one, an empty last block ends it.
            out += stream.decompress(b"\x03\x00", 1)
            whole = whole and stream.eof and not stream.unused_data
        except zlib.error as error:
            raise Damage(f"a segment cannot be decompressed: {error} ({where})") from None
    else:
        try:
            out, whole = unzstd(data, size)
        except Unable:
            raise
        except Exception as error:
            raise Damage(f"a segment cannot be decompressed: {error} ({where})") from None
    need(whole, "a segment has input left over, or ends the stream", where)
    need(len(out) == size, "a segment has not the length that the index says", where)
    return out


# --- The tar ----------------------------------------------------------------------------------


def padded(size):
    return -(-size // BLOCK) * BLOCK


def cut(text, limit):
    """The longest beginning of at most `limit` bytes that splits no character."""
    return text.encode()[:limit].decode("utf-8", "ignore").encode()


def block(name, mode, size, mtime, kind, link=b""):
    if size < 1 << 33:
        size = b"%011o\0" % size
    else:
        size = b"\x80" + size.to_bytes(11, "big")
    header = bytearray(BLOCK)
    header[0 : len(name)] = name
    header[100:108] = b"%07o\0" % mode
    header[108:124] = b"0000000\0" * 2
    header[124:136] = size
    header[136:148] = b"%011o\0" % mtime
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%07o\0" % sum(header)
    return bytes(header)


def pax_record(key, value):
    body = f" {key}={value}\n".encode()
    size = len(body)
    while size != len(body) + len(str(size)):
        size = len(body) + len(str(size))
    return str(size).encode() + body


def header(path, mode, size, mtime, kind=b"0", link=""):
    """All header blocks of a file, computed."""
    records = b""
    if len(path.encode()) > 100:
        records += pax_record("path", path)
    if len(link.encode()) > 100:
        records += pax_record("linkpath", link)
    if size >= 1 << 33:
        records += pax_record("size", size)
    blocks = block(cut(path, 100), mode, size, mtime, kind, cut(link, 100))
    if records:
        pax = block(b"././@PaxHeader", 0o644, len(records), 0, b"x")
        blocks = pax + records.ljust(padded(len(records)), b"\0") + blocks
    return blocks


def own_file(data, path, mtime):
    """The content of an index page or the root, alone in its segment."""
    field = re.fullmatch(rb"([0-7]{11})\0", data[124:136])
    need(field, "the header has no length", path)
    size = int(field[1], 8)
    blocks = header(path, 0o644, size, mtime)
    need(data[: len(blocks)] == blocks, "the header is not the one that it must be", path)
    end = len(blocks) + size
    need(len(data) >= end, "it is longer than its segment", path)
    return data[len(blocks) : end], data[end:]


# --- Names and paths --------------------------------------------------------------------------


def exact(value, where):
    """A name's bytes: a string, or tagged where it is not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict) and value.keys() == {"$type", "_value"} and value["$type"] == "Base64":
        try:
            name = base64.b64decode(value["_value"], validate=True)
        except (ValueError, TypeError):
            raise Damage(f"a name is not Base64 ({where})") from None
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            return name
    raise Damage(f"a name is not a name ({where})")


def escape(name, underscore=False, dot=False, limit=255):
    if not name:
        return "%"
    if name in (b".", b".."):
        return "%2E" * len(name)
    pieces = []
    # What is not valid UTF-8 comes out as lone surrogates, byte by byte.
    for at, char in enumerate(name.decode("utf-8", "surrogateescape")):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            pieces.append(f"%{code - 0xDC00:02X}")
        elif char in "%/\\" or code < 0x20 or code == 0x7F or (dot and char == "."):
            pieces.append(f"%{code:02X}")
        elif underscore and at == 0 and char == "_":
            pieces.append("%5F")
        else:
            pieces.append(char)
    if len("".join(pieces).encode()) <= limit:
        return "".join(pieces)
    kept, room = "", limit - 34
    for piece in pieces:
        if len((kept + piece).encode()) > room:
            break
        kept += piece
    return f"{kept}%~{sha256(name)[:32]}"


def escape_path(path):
    return "/".join(escape(name) for name in path.split(b"/"))


def escape_target(target):
    """As a path, but that it may lead anywhere."""
    return "/".join(n.decode() if n in (b"", b".", b"..") else escape(n) for n in target.split(b"/"))


class Part:
    """A part as an index page lists it."""

    def __init__(self, facts, offset):
        where = f"index line {facts!r}"
        self.facts, self.offset = facts, offset
        self.kind = member(facts, "kind", str, where)
        self.path = member(facts, "path", str, where)
        self.size = member(facts, "size", int, self.path)
        need(self.path == self.expected_path(), "the path is not the one that it must be", self.path)

    def text(self, name):
        return member(self.facts, name, str, self.path).encode("utf-8")

    def number(self, name):
        return member(self.facts, name, int, self.path)

    def expected_path(self):
        kind = self.kind
        plain = {"preamble": "backup.json", "checksums": "checksums.sha256"}
        if kind in plain:
            return plain[kind]
        if kind == "config":
            return f"config/{escape(self.text('name'), underscore=True)}.json"
        need(kind in ("schema", "records", "vector", "blob", "entry"), "a part of an unknown kind", kind)
        self.store = self.text("store")
        store = escape(self.store, underscore=True)
        if kind == "blob":
            self.name = self.text("name")
            return f"stores/{store}/_native/{escape(self.name)}"
        if kind == "entry":
            return f"files/{store}/{escape(self.text('root'), underscore=True)}/{self.entry()}"
        self.collection = self.text("collection")
        folder = f"stores/{store}/{escape(self.collection, underscore=True)}"
        if kind == "schema":
            return f"{folder}/schema.json"
        self.partition = self.text("partition")
        stem = f"{folder}/{escape(self.partition, dot=True, limit=96)}-{self.number('number'):06}"
        if kind == "records":
            self.number("records")
            return f"{stem}.jsonl"
        role = member(self.facts, "role", str, self.path)
        need(role in ROLES, "an array of an unknown role", role)
        need(member(self.facts, "element", str, self.path) in ELEMENT, "an unknown element type", self.path)
        suffix = f".{role}" if role in ("offsets", "indices", "present") else ""
        return f"{stem}.{escape(self.text('vector'), dot=True, limit=96)}{suffix}.npy"

    def entry(self):
        facts = self.facts
        self.collection = self.text("root")
        self.inner = exact(facts.get("name"), self.path)
        names = self.inner.split(b"/")
        need(not {b"", b".", b".."} & set(names) and b"\0" not in self.inner, "a path leads astray", self.path)
        need(self.number("mode") <= 0o777, "a mode has more than permission bits", self.path)
        modified = member(facts, "modified", list, self.path)
        need(len(modified) == 2 and all(type(n) is int for n in modified), "a time is wrong", self.path)
        need(0 <= modified[1] < 10**9, "a time is wrong", self.path)
        what = facts.get("entry")
        self.target = None
        if isinstance(what, dict) and what.keys() == {"symlink"}:
            self.target, what = exact(what["symlink"], self.path), "symlink"
        need(what in ("file", "directory", "symlink"), "an entry of an unknown kind", self.path)
        need(what == "file" or self.size == 0, "a folder or a link has content", self.path)
        need(facts.get("fault") in (None, "shrank", "grew"), "an unknown fault", self.path)
        self.what = what
        return escape_path(self.inner)

    def header(self, mtime):
        if self.kind != "entry":
            return header(self.path, 0o644, self.size, mtime)
        mode = self.facts["mode"]
        mtime = min(max(self.facts["modified"][0], 0), (1 << 33) - 1)
        if self.what == "directory":
            return header(self.path + "/", mode, 0, mtime, b"5")
        if self.what == "symlink":
            return header(self.path, mode, 0, mtime, b"2", escape_target(self.target))
        return header(self.path, mode, self.size, mtime)

    def span(self, mtime):
        """Its length in the tar, with header and padding."""
        return len(self.header(mtime)) + padded(self.size)


ROLES = {"dense": 0, "multi": 0, "sparse": 0, "offsets": 1, "indices": 2, "present": 3}


class Order:
    """The order in which parts stand, which makes paths unique."""

    def __init__(self):
        self.count = 0
        self.ended = False
        self.once = set()
        self.numbers = {}
        self.latest = {}
        self.batch = None
        self.array = None

    def check(self, part):
        need(not self.ended, "a part comes after checksums.sha256", part.path)
        need((part.kind == "preamble") == (self.count == 0), "backup.json does not come first", part.path)
        self.count += 1
        self.ended = part.kind == "checksums"
        if part.kind in ("schema", "blob", "config"):
            need(part.path not in self.once, "it comes twice", part.path)
            self.once.add(part.path)
        if part.kind == "records":
            collection = (part.store, part.collection)
            need(f"{part.path.rsplit('/', 1)[0]}/schema.json" in self.once, "records come before their schema", part.path)
            batch = collection + (part.partition,)
            need(part.facts["number"] == self.numbers.get(batch, 0), "the numbers have a gap", part.path)
            self.numbers[batch] = part.facts["number"] + 1
            self.batch, self.array = batch + (part.facts["number"],), None
        elif part.kind == "vector":
            batch = (part.store, part.collection, part.partition, part.facts["number"])
            need(batch == self.batch, "an array does not follow its lines", part.path)
            array = (part.text("vector"), ROLES[part.facts["role"]])
            need(self.array is None or self.array < array, "arrays are out of order", part.path)
            self.array = array
        else:
            self.batch = None
        if part.kind == "entry":
            self.entry(part)

    def entry(self, part):
        root = (part.store, part.collection)
        names = part.inner.split(b"/")
        last, leaf = self.latest.get(root, ([], False))
        need(last < names, "entries of a root do not ascend", part.path)
        need(not (leaf and names[: len(last)] == last), "an entry stands below what is no folder", part.path)
        self.latest[root] = (names, part.what != "directory")


# --- The archive ------------------------------------------------------------------------------


class Segment:
    def __init__(self, offset, size, tar_offset, tar_size, digest):
        self.offset, self.size = offset, size
        self.tar_offset, self.tar_size, self.digest = tar_offset, tar_size, digest


class Archive:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.length = self.file.seek(0, 2)
        self.trailer()
        self.root()
        self.index()

    def read(self, offset, size, where):
        self.file.seek(offset)
        data = self.file.read(size)
        need(len(data) == size, "the file ends too early", where)
        return data

    def trailer(self):
        for codec, (before, after) in WRAPPING.items():
            size = len(before) + RECORD.size + len(after)
            if self.length < size:
                continue
            raw = self.read(self.length - size, size, "trailer")
            if raw[len(before) :].startswith(b"BKITEND1"):
                break
        else:
            raise Damage("there is no trailer: this is no archive, or it was cut")
        record = raw[len(before) : len(before) + RECORD.size]
        need(raw == before + record + after, "the wrapping of the trailer is damaged")
        (_, version, number, features, self.id, self.began, offset, packed, size, digest, self.tar_size,
         self.crc, length, own) = RECORD.unpack(record)
        need(hashlib.sha256(record[:128]).digest() == own, "the trailer is damaged")
        need(version == 1, f"the format has version {version}, which this reader does not know")
        need(number == NUMBER[codec], "the trailer names another codec")
        need(features == 0, f"the archive needs features that this reader does not know: {features:#x}")
        need(length == self.length, f"the file has {self.length} bytes and was written with {length}")
        need(codec == "gzip" or self.crc == 0, "the trailer has a CRC where there is none")
        self.codec, self.mtime = codec, self.began // 1_000_000
        end = self.length - len(raw)
        need(offset + packed + TAIL[codec] == end, "the root is not followed by the tail and the trailer")
        self.end = end - TAIL[codec]
        need(size <= self.tar_size, "the root is longer than the tar")
        self.root_segment = Segment(offset, packed, self.tar_size - size, size, digest.hex())
        if codec == "gzip":
            tail = self.read(self.end, 10, "tail")
            need(tail == struct.pack("<HII", 3, self.crc, self.tar_size % (1 << 32)), "the tail is damaged")
        head = self.read(0, len(HEAD[codec]), "head")
        need(head == HEAD[codec], "the head is not the one of the codec")

    def segment(self, segment, limit, where):
        """The bytes of a segment: hashed first, then decompressed."""
        size = segment.tar_size
        need(0 < size <= limit, "a segment is empty or too long", where)
        need(segment.size <= size + size // 64 + 1024, "a segment takes more room than it may", where)
        data = self.read(segment.offset, segment.size, where)
        need(sha256(data) == segment.digest, "a segment does not match its hash", where)
        return decompress(self.codec, data, size, where)

    def root(self):
        segment = self.root_segment
        data = self.segment(segment, MAX_OWN, "manifest.json")
        text, rest = own_file(data, "manifest.json", self.mtime)
        need(rest == bytes(padded(len(text)) - len(text)) + END, "the tar does not end as it must")
        self.manifest = root = document(text, "manifest.json")
        self.identity(root, "manifest.json")
        need(root.get("codec") == self.codec, "the root names another codec")
        index = member(root, "index", dict, "manifest.json")
        need(member(index, "tar_size", int, "index") == segment.tar_offset, "the root is not where it says")

    def identity(self, value, where):
        need(member(value, "format", int, where) == 1, "another version of the format", where)
        plain = self.id.hex()
        uuid = "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))
        need(value.get("id") == uuid, "the id is not the one of the trailer", where)
        created = member(value, "created", str, where)
        zero = datetime.datetime(1970, 1, 1)
        try:
            began = zero + datetime.timedelta(microseconds=self.began)
        except OverflowError:
            return  # years that Python does not have
        need(created == began.isoformat().rstrip("0") + "Z" if began.microsecond else
             created == began.isoformat() + "Z", "the time is not the one of the trailer", where)
        self.uuid = uuid

    def index(self):
        self.parts, self.segments = [], []
        order = Order()
        offset, tar_offset, after_page, previous = len(HEAD[self.codec]), 0, 0, None
        pages = member(self.manifest["index"], "pages", list, "manifest.json")
        for number, place in enumerate(pages):
            where = f"index/{number:06}.jsonl"
            names = ("offset", "size", "tar_offset", "tar_size")
            page = Segment(*(member(place, name, int, where) for name in names), member(place, "sha256", str, where))
            text, rest = own_file(self.segment(page, MAX_OWN, where), where, self.mtime)
            need(rest == bytes(padded(len(text)) - len(text)), "something follows in its segment", where)
            need(text.endswith(b"\n"), "it does not end with a line feed", where)
            lines = [parse(line, where) for line in text[:-1].split(b"\n")]
            head, segments = lines[0], member(lines[0], "segments", int, where)
            need(head.get("archive") == self.uuid, "it is of another archive", where)
            need(member(head, "number", int, where) == number, "it has another number", where)
            need("previous" in head and head["previous"] == previous, "the page before is another", where)
            need(len(lines) == 1 + segments + member(head, "parts", int, where), "it has not the lines that it says", where)
            for line in lines[1 : 1 + segments]:
                size, tar_size = member(line, "size", int, where), member(line, "tar_size", int, where)
                self.segments.append((Segment(offset, size, tar_offset, tar_size, member(line, "sha256", str, where)), MAX_SEGMENT))
                offset, tar_offset = offset + size, tar_offset + tar_size
            need((offset, tar_offset) == (page.offset, page.tar_offset), "the segments do not lead to the page", where)
            at = after_page
            for line in lines[1 + segments :]:
                part = Part(line, at)
                order.check(part)
                at += part.span(self.mtime)
                self.parts.append(part)
            need(at == page.tar_offset, "the parts do not fill the tar up to the page", where)
            self.segments.append((page, MAX_OWN))
            offset, tar_offset = page.offset + page.size, page.tar_offset + page.tar_size
            after_page, previous = tar_offset, place
        need(order.ended, "checksums.sha256 is missing")
        root = self.root_segment
        need((offset, tar_offset) == (root.offset, root.tar_offset), "the pages do not lead to the root")
        self.segments.append((root, MAX_OWN))
        facts = self.manifest["index"]
        need(facts.get("parts") == len(self.parts), "the root counts other parts")
        need(facts.get("bytes") == sum(part.size for part in self.parts), "the root counts other bytes")

    def tar(self, offset=0, end=None):
        """The tar's bytes, segment by segment, from the one that holds `offset`."""
        end = self.tar_size if end is None else end
        for segment, limit in self.segments:
            start = segment.tar_offset
            if start + segment.tar_size > offset and start < end:
                data = self.segment(segment, limit, f"tar at {start}")
                yield data[max(offset - start, 0) :]

    def content(self, part):
        """The content of one part, from the segments that hold it."""
        stream = Stream(self.tar(part.offset, part.offset + part.span(self.mtime)))
        yield from stream.part(part, self.mtime)


class Stream:
    """Bytes that come in pieces, taken in other pieces."""

    def __init__(self, pieces):
        self.pieces, self.rest = pieces, b""

    def some(self, most):
        if not self.rest:
            self.rest = next(self.pieces, b"")
            need(self.rest, "the tar ends too early")
        taken, self.rest = self.rest[:most], self.rest[most:]
        return taken

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            data += self.some(size - len(data))
        return bytes(data)

    def part(self, part, mtime):
        expected = part.header(mtime)
        need(self.exactly(len(expected)) == expected, "a header is not the one that it must be", part.path)
        left = part.size
        while left:
            piece = self.some(left)
            left -= len(piece)
            yield piece
        padding = padded(part.size) - part.size
        need(self.exactly(padding) == bytes(padding), "the padding is not zero", part.path)


# --- Everything -------------------------------------------------------------------------------


class Tally:
    """Count and digests of a collection, and the bytes of its parts."""

    def __init__(self):
        self.records, self.digest, self.bytes = 0, 0, 0
        self.vectors = {}

    def line(self, line):
        self.records += 1
        self.digest += framed(line)

    def facts(self):
        facts = {"records": self.records, "digest": hexadecimal(self.digest), "bytes": self.bytes}
        vectors = {n: {"count": c, "digest": hexadecimal(d)} for n, (c, d) in self.vectors.items()}
        return facts, vectors


def framed(*fields):
    data = b"".join(struct.pack("<Q", len(field)) + field for field in fields)
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def hexadecimal(number):
    return f"{number % (1 << 256):064x}"


class Check:
    """Reads all parts in order and compares what they hold with what the root says."""

    def __init__(self, archive):
        self.archive = archive
        self.checksums = []
        self.collections, self.blobs, self.stores, self.configs = {}, {}, {}, []
        self.keys, self.open = None, None

    def run(self):
        archive, pieces = self.archive, Pieces(self.archive)
        stream = Stream(iter(pieces))
        pages = [segment for segment, limit in archive.segments if limit == MAX_OWN]
        at = 0
        for part in archive.parts:
            if part.offset != at:  # an index page lies between, which was read already
                page = pages.pop(0)
                need((page.tar_offset, page.tar_offset + page.tar_size) == (at, part.offset), "a page is missing")
                stream.exactly(page.tar_size)
            self.part(part, stream.part(part, archive.mtime))
            at = part.offset + part.span(archive.mtime)
        for page in pages:
            stream.exactly(page.tar_size)
        self.finish_vector()
        need(not stream.rest and next(stream.pieces, None) is None, "the tar goes on after its end")
        need(pieces.crc == archive.crc, "the CRC-32 of the tar is another")
        self.compare()

    def part(self, part, content):
        if part.kind != "vector":
            self.finish_vector()
        digest = hashlib.sha256()
        whole = part.kind in ("blob", "entry")
        kept = bytearray()
        masked = Masked(part.facts.get("masked", []), part.path) if part.kind == "blob" else None
        for piece in content:
            digest.update(piece)
            if masked:
                masked.update(piece)
            if not whole:
                kept += piece
        data, plain = bytes(kept), digest.hexdigest()
        if part.kind == "checksums":
            need(data == "".join(self.checksums).encode(), "checksums.sha256 does not say what the parts are")
        elif part.kind != "entry" or part.what == "file":
            self.checksums.append(f"{plain}  {part.path}\n")
        self.count(part)
        if part.kind == "blob":
            facts = {"len": part.size, "digest": masked.digest.hexdigest()}
            if masked.ranges:
                facts["masked"] = masked.ranges
            self.blobs.setdefault(part.facts["store"], {})[part.facts["name"]] = facts
        elif part.kind == "entry":
            self.entry(part, plain)
        elif part.kind != "checksums":
            getattr(self, part.kind)(part, data)

    def count(self, part):
        if part.kind in ("preamble", "checksums", "config"):
            return
        store = self.stores.setdefault(part.facts["store"], [0, 0])
        store[0] += 1
        store[1] += part.size
        if part.kind != "blob":
            self.tally(part).bytes += part.size

    def tally(self, part):
        name = part.facts.get("collection", part.facts.get("root"))
        return self.collections.setdefault(part.facts["store"], {}).setdefault(name, Tally())

    def preamble(self, part, data):
        value = document(data, part.path)
        self.archive.identity(value, part.path)

    def config(self, part, data):
        document(data, part.path)
        self.configs.append(part.facts["name"])

    def schema(self, part, data):
        document(data, part.path)

    def records(self, part, data):
        need(not data or data.endswith(b"\n"), "the last line is cut", part.path)
        lines = data[:-1].split(b"\n") if data else []
        need(len(lines) == part.facts["records"], "there are other lines than the index says", part.path)
        tally, self.keys = self.tally(part), []
        for line in lines:
            need(len(line) <= MAX_LINE, "a line is too long", part.path)
            value = parse(line, part.path)
            need(isinstance(value, dict), "a line is no record", part.path)
            names = list(value)
            need(names in (["key", "value"], ["element", "key", "value"]), "a line is no record", part.path)
            need(value.get("element", "") is not None, "an element has no identity", part.path)
            tally.line(line)
            self.keys.append(canonical(value["key"]).encode())

    def vector(self, part, data):
        values, role = self.array(part, data), part.facts["role"]
        if ROLES[role] == 0:
            self.finish_vector()
            self.open = Vector(part, self.keys, self.tally(part))
        need(self.open and self.open.name == part.facts["vector"], "values are missing", part.path)
        self.open.take(part, values)

    def array(self, part, data):
        """The bytes of an array after its header, which is computed."""
        role, element = part.facts["role"], part.facts["element"]
        shape = member(part.facts, "shape", list, part.path)
        need(len(shape) == (2 if role in ("dense", "multi") else 1), "a shape is wrong", part.path)
        need(all(type(n) is int and n >= 0 for n in shape), "a shape is wrong", part.path)
        descr, size = {"offsets": ("<u8", 8), "indices": ("<u4", 4), "present": ("|b1", 1)}.get(role, ELEMENT[element])
        for n in shape:
            size *= n
        listed = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({listed}), }}"
        text += " " * (-(10 + len(text) + 1) % 64) + "\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
        need(data.startswith(start), "the header of an array is not the one that it must be", part.path)
        need(len(data) == len(start) + size, "an array has another length than its shape", part.path)
        return data[len(start) :]

    def finish_vector(self):
        if self.open:
            self.open.add()
        self.open = None

    def compare(self):
        root = self.archive.manifest
        need(root.get("config", []) == self.configs, "the root names other configurations")
        stores = member(root, "stores", dict, "manifest.json")
        need(set(self.stores) <= set(stores), "the root does not name every store")
        for name, facts in stores.items():
            where = f"store {name!r}"
            need(isinstance(facts, dict), "the root is wrong", where)
            found = self.stores.get(name, [0, 0])
            need([facts.get("parts"), facts.get("bytes")] == found, "the root counts other parts or bytes", where)
            need(facts.get("blobs", {}) == self.blobs.get(name, {}), "the root says something else of the blobs", where)
            collections = member({"collections": {}, **facts}, "collections", dict, where)
            tallies = self.collections.get(name, {})
            need(set(collections) == set(tallies), "the root names other collections", where)
            for collection, tally in tallies.items():
                told, (basic, vectors) = collections[collection], tally.facts()
                need(isinstance(told, dict), "the root is wrong", where)
                for fact, value in basic.items():
                    need(told.get(fact) == value, f"the {fact} of {collection!r} are not what the root says", where)
                need(told.get("vectors", {}) == vectors, f"the vectors of {collection!r} are not what the root says", where)

    def entry(self, part, digest):
        facts = part.facts
        line = {"kind": part.what, "mode": facts["mode"], "modified": facts["modified"], "path": facts["name"]}
        if part.what == "file":
            line.update(sha256=digest, size=part.size)
        elif part.what == "symlink":
            line["target"] = facts["entry"]["symlink"]
        self.tally(part).line(canonical(line).encode())


class Masked:
    """A hash in which some ranges count as zeros."""

    def __init__(self, ranges, where):
        end = 0
        need(isinstance(ranges, list), "the masked ranges are wrong", where)
        for pair in ranges:
            fits = isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)
            need(fits and end <= pair[0] <= pair[1], "the masked ranges are wrong", where)
            end = pair[1]
        self.ranges, self.at, self.digest = ranges, 0, hashlib.sha256()

    def update(self, piece):
        data = bytearray(piece)
        for start, end in self.ranges:
            start, end = max(start - self.at, 0), min(end - self.at, len(data))
            if start < end:
                data[start:end] = bytes(end - start)
        self.at += len(piece)
        self.digest.update(data)


class Vector:
    """The arrays of one vector of one batch, until all have come."""

    def __init__(self, part, keys, tally):
        self.name, self.role = part.facts["vector"], part.facts["role"]
        self.element, self.shape, self.where = part.facts["element"], part.facts["shape"], part.path
        self.keys, self.tally = keys, tally
        self.values = self.offsets = self.indices = self.present = None

    def take(self, part, data):
        role, rows = part.facts["role"], len(self.keys)
        shape = part.facts["shape"]
        if role == self.role:
            self.values = data
            need(role != "dense" or shape[0] == rows, "an array has other rows than there are lines", part.path)
            return
        need(part.facts["element"] == self.element, "an array has another element type than its values", part.path)
        if role == "offsets":
            need(self.role != "dense" and shape == [rows + 1], "offsets are wrong", part.path)
            self.offsets = struct.unpack(f"<{rows + 1}Q", data)
            steps = all(a <= b for a, b in zip(self.offsets, self.offsets[1:]))
            need(self.offsets[0] == 0 and steps and self.offsets[-1] == self.shape[0], "offsets are wrong", part.path)
        elif role == "indices":
            need(self.role == "sparse" and shape == self.shape, "indices are wrong", part.path)
            self.indices = data
        else:
            need(shape == [rows] and set(data) <= {0, 1} and 0 in data, "the presence is wrong", part.path)
            self.present = data

    def add(self):
        need(self.role == "dense" or self.offsets is not None, "offsets are missing", self.where)
        need(self.role != "sparse" or self.indices is not None, "indices are missing", self.where)
        size = ELEMENT[self.element][1] * (self.shape[1] if len(self.shape) == 2 else 1)
        form = self.role if self.role == "sparse" else f"{self.role} {self.shape[1]}"
        count, digest = self.tally.vectors.get(self.name, (0, 0))
        for row, key in enumerate(self.keys):
            first, last = (row, row + 1) if self.role == "dense" else self.offsets[row : row + 2]
            values = self.values[first * size : last * size]
            if self.present and not self.present[row]:
                need(not any(values), "a record lacks a vector and has values", self.where)
                continue
            fields = [key, self.name.encode(), self.element.encode(), form.encode()]
            if self.role == "sparse":
                fields.append(self.indices[first * 4 : last * 4])
            digest += framed(*fields, values)
            count += 1
        if count:
            self.tally.vectors[self.name] = (count, digest)


class Pieces:
    """All of the tar, with its CRC-32 as it goes by."""

    def __init__(self, archive):
        self.archive, self.crc = archive, 0

    def __iter__(self):
        for piece in self.archive.tar():
            if self.archive.codec == "gzip":
                self.crc = zlib.crc32(piece, self.crc)
            yield piece


# --- The command line -------------------------------------------------------------------------


def run(command, archive, path):
    if command == "check":
        Check(archive).run()
        stores = len(archive.manifest["stores"])
        print(f"whole: {len(archive.parts)} parts of {stores} stores (integrity, not authenticity)")
    elif command == "list":
        for part in archive.parts:
            print(f"{part.size:12} {part.path}")
    else:
        found = [part for part in archive.parts if part.path == path]
        need(found, "there is no such part", path)
        for piece in archive.content(found[0]):
            sys.stdout.buffer.write(piece)


def main(arguments):
    if len(arguments) < 2 or {"check": 2, "list": 2, "extract": 3}.get(arguments[0]) != len(arguments):
        print(__doc__, file=sys.stderr)
        return 2
    command, name, path = (*arguments, None)[:3]
    try:
        run(command, Archive(name), path)
        sys.stdout.flush()
        return 0
    except Damage as error:
        print(f"{name}: refused: {error}", file=sys.stderr)
        return 1
    except Unable as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
