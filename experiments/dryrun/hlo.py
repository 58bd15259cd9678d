"""What a compiled program's text says: its instructions, how often each runs, and where in the source it was written.

The text is XLA's, after all of its passes. An instruction runs as often as the loops around it turn; of a conditional's
branches the one of most cycles is counted. Loops count up: a loop's turns are read off its counter's start, step and
limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAMED = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(r"(\w+)=\{?(%[\w.\-]+(?:, ?%[\w.\-]+)*)\}?")
_CALLS = ("calls", "body", "condition", "to_apply", "branch_computations", "true_computation", "false_computation")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")


class Frame(NamedTuple):
    """A line of source, of a function of a file."""

    file: str
    function: str
    line: int


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: in its computation.
        shape: of its value, as text.
        opcode: such as "fusion".
        operands: the text between its parentheses.
        attributes: the text after them.
        is_root: whether its value is its computation's.
    """

    name: str
    shape: str
    opcode: str
    operands: str
    attributes: str
    is_root: bool

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one run, in cycles of the device; 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else 0

    @property
    def custom_call_target(self) -> str:
        """The kernel that it calls, or empty."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, *kinds: str) -> list[str]:
        """The names of the computations that it calls, in these ways or in any."""
        found = (each for each in _CALLED.findall(self.attributes) if each[0] in (kinds or _CALLS))
        return [name.strip().lstrip("%") for _, names in found for name in names.split(",")]

    @property
    def operand_names(self) -> list[str]:
        """The names of the instructions whose values it takes."""
        return re.findall(r"%([\w.\-]+)", self.operands)


def num_bytes(shape: str) -> int:
    """The bytes of all arrays of a shape, without padding.

    >>> num_bytes("(bf16[16,72]{1,0:T(8,128)}, pred[])")
    2305
    """
    return sum(
        math.ceil(_num_bits(kind) * math.prod(int(size) for size in sizes.split(",") if size) / 8)
        for kind, sizes in _ARRAY.findall(shape)
    )


def _num_bits(kind: str) -> int:
    found = _BITS.search(kind)
    return int(found[0]) if found else {"pred": 8}.get(kind, 0)


def _balanced(text: str, start: int) -> int:
    """Where the parenthesis that opens at ``start`` is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return len(text)


def _instruction(line: str) -> Instruction | None:
    found = _NAMED.match(line)
    if not found:
        return None
    start = found.end()
    stop = _balanced(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    stop = line.index(" ", stop)
    opening = line.index("(", stop)
    closing = _balanced(line, opening)
    shape, opcode = line[start:stop], line[stop + 1 : opening]
    return Instruction(found[2], shape, opcode, line[opening + 1 : closing], line[closing + 1 :], found[1] is not None)


class Program:
    """A compiled program, of its text."""

    def __init__(self, text: str) -> None:
        """Reads the text."""
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self._tables: dict[str, list[str]] = {}
        self._read(text)

    def _read(self, text: str) -> None:
        table: list[str] = []
        inside: dict[str, Instruction] | None = None
        for line in text.splitlines():
            if line.endswith("{") and (head := _HEAD.match(line)):
                inside = self.computations[head[1]] = {}
                self.entry = head[1] if line.startswith("ENTRY") else self.entry
            elif line == "}":
                inside = None
            elif inside is not None:
                if (found := _instruction(line)) is not None:
                    inside[found.name] = found
            elif line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
                table = self._tables[line] = []
            elif line:
                table.append(line)

    @cached_property
    def _frames(self) -> dict[int, tuple[Frame, int]]:
        """Each stack frame's number -> (its line of source, the number of the frame that called it)."""
        files, functions = (
            {int(row.split(" ", 1)[0]): row.split('"')[1] for row in self._tables.get(name, [])}
            for name in ("FileNames", "FunctionNames")
        )
        rows = {name: dict(map(_numbers, self._tables.get(name, []))) for name in ("FileLocations", "StackFrames")}
        places = {
            number: Frame(files[row["file_name_id"]], functions[row["function_name_id"]], row["line"])
            for number, row in rows["FileLocations"].items()
        }
        return {
            number: (places[row["file_location_id"]], row.get("parent_frame_id", number))
            for number, row in rows["StackFrames"].items()
        }

    def frames(self, instruction: Instruction) -> list[Frame]:
        """The lines of source that an instruction was traced at, the innermost first."""
        found = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        number, frames = int(found[1]) if found else 0, []
        while number in self._frames:
            place, caller = self._frames[number]
            frames.append(place)
            if caller == number:
                break
            number = caller
        return frames

    def inner(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instructions of the computations that an instruction calls, and of those that they call."""
        for name in instruction.called():
            for each in self.computations.get(name, {}).values():
                yield each
                yield from self.inner(each)

    def runs(self, of: Callable[[Instruction], bool] = lambda _: True) -> Iterator[tuple[Instruction, int]]:
        """(instruction, how often it runs) of the entry and all that it calls but what lies inside fusions."""
        yield from ((each, times) for each, times in self._walk(self.entry, 1) if of(each))

    def _walk(self, name: str, times: int) -> Iterator[tuple[Instruction, int]]:
        for each in self.computations[name].values():
            yield each, times
            for inner, turns in self._next(each):
                yield from self._walk(inner, times * turns)

    def _next(self, instruction: Instruction) -> list[tuple[str, int]]:
        """(computation, how often an instruction runs it), where it is no fusion's or reduction's own."""
        if instruction.opcode == "while":
            return [(instruction.called("body")[0], self.turns(instruction))]
        if instruction.opcode == "conditional":
            branches = instruction.called("branch_computations", "true_computation", "false_computation")
            return [(max(branches, key=self.cycles), 1)]
        if instruction.opcode in ("call", "async-start"):
            return [(name, 1) for name in instruction.called("to_apply", "calls")]
        return []

    def cycles(self, name: str) -> int:
        """The estimated cycles of a computation, its loops' and calls' among them."""
        return sum(each.cycles * times for each, times in self._walk(name, 1))

    def turns(self, loop: Instruction) -> int:
        """How often a loop turns; 1 where its counter cannot be read."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if known:
            return int(known[1])
        condition, body = (self.computations[loop.called(kind)[0]] for kind in ("condition", "body"))
        test = next((each for each in condition.values() if each.is_root), None)
        if test is None or test.opcode != "compare" or "direction=LT" not in test.attributes:
            return 1
        counter, limit = (condition[name] for name in test.operand_names)
        index, last = _index(counter), _constant(condition, limit)
        if index is None or last is None:
            return 1
        owner = next(each for each in self.computations.values() if each.get(loop.name) is loop)
        start = _constant(owner, _element(owner, owner[loop.operand_names[0]], index)) or 0
        root = next(each for each in body.values() if each.is_root)
        return max(1, -(-(last - start) // _increment(body, _element(body, root, index))))


def _numbers(row: str) -> tuple[int, dict[str, int]]:
    number, _, rest = row.partition(" ")
    return int(number), {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", rest)}


def _index(instruction: Instruction) -> int | None:
    found = re.search(r"index=(\d+)", instruction.attributes)
    return int(found[1]) if instruction.opcode == "get-tuple-element" and found else None


def _element(inside: dict[str, Instruction], value: Instruction, index: int) -> Instruction:
    """Element ``index`` of a tuple, or what cannot be followed further."""
    return inside.get(value.operand_names[index], value) if value.opcode == "tuple" else value


def _constant(inside: dict[str, Instruction], value: Instruction) -> int | None:
    """The integer that an instruction is, through copies; None for what is none."""
    while value.opcode in ("copy", "bitcast") and value.operand_names[0] in inside:
        value = inside[value.operand_names[0]]
    is_constant = value.opcode == "constant" and re.fullmatch(r"-?\d+", value.operands)
    return int(value.operands) if is_constant else None


def _increment(inside: dict[str, Instruction], value: Instruction) -> int:
    """What a turn adds to the counter; 1 where that cannot be read."""
    if value.opcode in ("copy", "bitcast") and value.operand_names[0] in inside:
        return _increment(inside, inside[value.operand_names[0]])
    if value.opcode != "add":
        return 1
    added = [_constant(inside, inside[name]) for name in value.operand_names if name in inside]
    return next((each for each in added if each), 1)
