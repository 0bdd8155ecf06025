"""What the site adds: the command line, made from the commands themselves, and no dead links into the code."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from delta_attnmask.cli import app

FOREWORD = """# Command line

Generated from the code. `delta-attnmask COMMAND --help` says the same; `python -m delta_attnmask` is the same program.

| exit code | |
|---|---|
| 0 | success |
| 1 | more failed rows than `--max-failed` allows, or the reader of the output has gone (such as `head`) |
| 2 | usage, input, settings or folders that can't be used |
| 3 | with `--strict`, a verdict that says no |
| 130 | Ctrl-C |

"""
INTO_THE_CODE = re.compile(r"\[([^\]]+)\]\(\.\./((?:src|tests|benchmarks|embedded|examples)/[^)]*)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = app.generate_docs(output_format="markdown", recursive=True, heading_level=2)
    files.append(File.generated(config, "cli.md", content=FOREWORD + pages))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a file of the repository leads nowhere on the site; its path is shown instead."""
    return INTO_THE_CODE.sub(r"\1 (`\2`)", markdown)
