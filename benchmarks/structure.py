"""How large the package is, and how much of it a call loads.

python -m benchmarks.structure
"""

import ast
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"
REGISTRIES = ("derived", "rivals", "rules")  # folders of one small file an entry

_SCORE_BATCH = """
import torch
from tests.families import FAMILIES
from delta_attnmask import MaskSettings, score_batch
ids = torch.randint(5, 20, (1, 12))
labels = ids.clone()
labels[:, :5] = -100
score_batch(FAMILIES["Llama"].build(), {"input_ids": ids}, labels, MaskSettings(block=-1))
"""
_SCORE = """
import sys, tempfile
from contextlib import suppress
from pathlib import Path
from delta_attnmask.cli import main
from delta_attnmask.embedded import export
with tempfile.TemporaryDirectory() as folder, suppress(SystemExit):
    home = export(Path(folder) / "home")
    files = ["--model", home / "model", "--data", home / "pool.json", "--images", home / "images"]
    options = ["--out", Path(folder) / "run", *sys.argv[1:]]
    main(["score", *map(str, [*files, *options])])
"""
_COUNT = """
import sys
print("modules", sum(name.partition(".")[0] == "delta_attnmask" for name in sys.modules))
"""


def main() -> None:
    modules = {path: path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py"))}
    lines = {path: text.count("\n") for path, text in modules.items()}
    functions = [length for text in modules.values() for length in _function_lengths(text)]  # docstrings aside
    names = Counter(path.stem for path in modules if path.stem != "__init__")
    small = [path for path, n in lines.items() if n < 40 and path.stem[0] != "_" and path.parent.name not in REGISTRIES]
    filled = [n for n in lines.values() if n]
    print(f"modules {len(modules)}, lines {sum(lines.values())}")
    print(f"lines of a module: median {statistics.median(filled):.0f}, longest {max(filled)}")
    typical, longest = statistics.median(functions), max(functions)
    print(f"lines of a function: median {typical:.0f}, longest {longest}; docstrings aside")
    print(f"modules under 40 lines: {', '.join(path.stem for path in small) or 'none'}")
    print(f"names of two modules: {', '.join(name for name, n in names.items() if n > 1) or 'none'}")
    print(f"score_batch loads {_loaded(_SCORE_BATCH)} modules")
    plain = _loaded(_SCORE, "--limit", "8", "--settings", "relative")
    print(f"the command score loads {plain} modules, {_loaded(_SCORE, '--limit', '80')} where it calibrates")


def _function_lengths(text: str) -> list[int]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) else 0
            found.append((node.end_lineno or 0) - node.lineno + 1 - docstring)
    return found


def _loaded(code: str, *arguments: str) -> int:
    command = [sys.executable, "-c", code + _COUNT, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(printed.rsplit("modules ", 1)[1])


if __name__ == "__main__":
    main()
