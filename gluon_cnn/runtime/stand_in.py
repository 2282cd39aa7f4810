"""A shared library of a given name whose functions all return one number, written byte by byte.

MXNet's GPU wheel cannot even be imported where the driver's `libcuda.so.1` is missing. A machine
without a GPU has no driver, and seldom a compiler: so the library that says "no device" is made
here. Layout: System V ABI, gABI chapter 5; x86-64 psABI.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_PAGE = 0x1000
_HEADER, _SEGMENT, _SYMBOL, _DYNAMIC = 64, 56, 24, 16  # sizes of the format's structures
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = (
    0, 4, 5, 6, 10, 11, 14,
)  # fmt: skip
_READ, _WRITE, _EXECUTE = 4, 2, 1
_PT_GNU_STACK = 0x6474E551
_GLOBAL_FUNCTION = 0x12
_EXECUTED_SECTION = 1  # any section but "undefined": nothing reads section headers at run time


def shared_object(soname: str, symbols: Sequence[str], value: int) -> bytes:
    """An x86-64 ELF library: `int f(…) { return value; }` for each of the symbols.

    >>> shared_object("libx.so.1", ["f"], 7)[:4]
    b'\\x7fELF'
    """
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in (*symbols, soname))
    offsets = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in (*symbols, soname)]
    code = b"\xb8" + struct.pack("<i", value) + b"\xc3"  # mov eax, value; ret
    count = len(symbols) + 1  # the first symbol of a table is empty

    at_symbols = _HEADER + 4 * _SEGMENT
    at_hash = at_symbols + count * _SYMBOL
    # One bucket, whose chain holds every symbol: its names are few, and looked up once.
    table = struct.pack("<III", 1, count, 1)
    table += struct.pack(f"<{count}I", 0, *(n + 1 for n in range(1, count - 1)), 0)
    at_strings = at_hash + len(table)
    at_code = -(-(at_strings + len(strings)) // 16) * 16

    names = b"\0" * _SYMBOL + b"".join(
        struct.pack("<IBBHQQ", offset, _GLOBAL_FUNCTION, 0, _EXECUTED_SECTION, at_code, len(code))
        for offset in offsets[:-1]
    )
    dynamic = b"".join(
        struct.pack("<QQ", tag, entry)
        for tag, entry in (
            (_DT_SONAME, offsets[-1]),
            (_DT_HASH, at_hash),
            (_DT_STRTAB, at_strings),
            (_DT_SYMTAB, at_symbols),
            (_DT_STRSZ, len(strings)),
            (_DT_SYMENT, _SYMBOL),
            (_DT_NULL, 0),
        )
    )
    at_dynamic = _PAGE  # a page of its own: the loader writes addresses into it
    first = b"".join(
        (
            _header(),
            _segment(1, _READ | _EXECUTE, 0, at_code + len(code)),
            _segment(1, _READ | _WRITE, at_dynamic, len(dynamic)),
            _segment(2, _READ | _WRITE, at_dynamic, len(dynamic)),
            # Without it the loader would make the whole process's stack executable
            _segment(_PT_GNU_STACK, _READ | _WRITE, 0, 0),
            names,
            table,
            strings,
        )
    )
    first = first.ljust(at_code, b"\0") + code
    return first.ljust(at_dynamic, b"\0") + dynamic


def _header() -> bytes:
    """A shared library (3) for x86-64 (62) of ELF version 1 with four segments, no sections."""
    kind = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    return kind + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, _HEADER, 0, 0, _HEADER, _SEGMENT, 4, 0, 0, 0
    )


def _segment(kind: int, flags: int, start: int, size: int) -> bytes:
    """PT_LOAD (1), PT_DYNAMIC (2) or PT_GNU_STACK; address and place in the file are the same."""
    alignment = _PAGE if kind == 1 else 8
    return struct.pack("<IIQQQQQQ", kind, flags, start, start, start, size, size, alignment)
