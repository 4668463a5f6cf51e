"""A start command as its words: what manifests take as a list of arguments, people paste as a line, and a saved plan keeps as that line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

PROGRAMS = {"vllm": ("vllm", "serve"), "sglang": ("python", "-m", "sglang.launch_server"), "trtllm": ("trtllm-serve",)}
OPTIONS_FLAG = "--extra_llm_api_options"  # of TensorRT-LLM: a file of YAML with what has no flag
OPTIONS = re.compile(rf" {OPTIONS_FLAG} <\(echo '([^']*)'\)")
ROLE = re.compile(r"(\d+) (prefill|decode) engines?")


@dataclass(frozen=True)
class Command:
    """One engine's start. ``words``: program and arguments; ``options``: the content of a file of further options, which only a shell makes in place.

    ``remarks``: what no flag says. Of a disaggregated unit ``role`` is prefill or decode, and ``engines`` how many of these there are.
    """

    words: tuple[str, ...]
    options: str = ""
    remarks: tuple[str, ...] = ()
    role: str = ""
    engines: int = 1

    @property
    def engine(self) -> str:
        """Whose program it starts; "" for another's."""
        return next((name for name, program in PROGRAMS.items() if self.words[: len(program)] == program), "")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words behind the program."""
        return self.words[len(PROGRAMS[self.engine]) :] if self.engine else self.words[1:]

    @property
    def text(self) -> str:
        """The line for a shell."""
        further = f" {OPTIONS_FLAG} <(echo '{self.options}')" if self.options else ""
        said = ([f"{self.engines} {self.role} engine{'s' * (self.engines > 1)}"] if self.role else []) + list(self.remarks)
        return f"{shlex.join(self.words)}{further}{' # ' if said else ''}{'; '.join(said)}"

    def value(self, flag: str) -> str | None:
        """What stands behind a flag; None where the flag is missing or the last word."""
        return next((b for a, b in zip(self.words, self.words[1:]) if a == flag), None)


def read_commands(text: str) -> tuple[Command, ...]:
    """The commands that a plan's ``serve_command`` says, one of each line. Raises ValueError for lines that are none of an engine's."""
    return tuple(_read(line) for line in text.split("\n"))


def _read(line: str) -> Command:
    start, remarks = apart(line)
    found = OPTIONS.search(start)
    words = shlex.split(start[: found.start()] + start[found.end() :] if found else start)
    first = ROLE.fullmatch(remarks[0]) if remarks else None
    command = Command(
        tuple(words), found.group(1) if found else "", remarks[1:] if first else remarks, first.group(2) if first else "", int(first.group(1)) if first else 1
    )
    if not command.engine:
        raise ValueError(f"'{line[:60]}' starts none of {', '.join(PROGRAMS)}")
    return command


def apart(line: str) -> tuple[str, tuple[str, ...]]:
    """A line without its comment, and the remarks in that. Raises ValueError where a quotation is left open."""
    for mark in re.finditer(" # ", line):
        try:
            shlex.split(line[: mark.start()])
        except ValueError:  # inside a quotation
            continue
        return line[: mark.start()], tuple(line[mark.end() :].split("; "))
    return line, ()
