"""Makes tests/data/flags: the flags of engines and benchmark clients, read in the sources of their wheels without installing them.

python benchmarks/flags.py DIR   where DIR holds wheels, such as of: pip download --no-deps -d DIR vllm==0.33.0
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

LISTS = {  # file here -> wheel, modules with options, classes whose fields are options
    "vllm-serve": ("vllm", ("vllm/engine/arg_utils.py", "vllm/entrypoints/common/cli_args.py"), ("BaseFrontendArgs", "FrontendArgs")),
    "vllm-bench-serve": ("vllm", ("vllm/benchmarks/serve.py", "vllm/benchmarks/datasets/datasets.py"), ()),
    "sglang": ("sglang", ("sglang/srt/arg_groups/fields/", "sglang/srt/server_args.py"), ("*",)),
    "guidellm-run": ("guidellm", ("guidellm/cli/run.py", "guidellm/schemas/benchmark/entrypoints.py"), ()),
    "aiperf-profile": ("aiperf", ("aiperf/config/flags/cli_config.py",), ()),
}


def main(folder: Path) -> None:
    target = Path(__file__).parent.parent / "tests" / "data" / "flags"
    target.mkdir(parents=True, exist_ok=True)
    for name, (package, modules, classes) in LISTS.items():
        wheel = next(folder.glob(f"{package}-*.whl"))
        version = wheel.name.split("-")[1]
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.endswith(".py") and any(n == m or (m.endswith("/") and n.startswith(m)) for m in modules)]
            found = {flag for n in names for flag in flags(archive.read(n).decode(), classes)}
        head = f"# {package} {version}: {', '.join(modules)} of its wheel, by benchmarks/flags.py\n"
        (target / f"{name}.txt").write_text(head + "".join(f"{flag}\n" for flag in sorted(found)))


def flags(source: str, classes: tuple[str, ...]) -> Iterator[str]:
    """Texts that begin with two dashes, fields of the classes, and what a schema's fields are called on the command line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--") and " " not in node.value and len(node.value) > 2:
            yield node.value
        if isinstance(node, ast.ClassDef) and (node.name in classes or "*" in classes):
            yield from (f"--{f.target.id.replace('_', '-')}" for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name))
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "argument_alias" and isinstance(value, ast.Constant):
                    yield f"--{value.value}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
