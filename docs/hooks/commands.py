"""The page of the command line, made from the commands themselves each time the site is built."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from delta_attnmask.cli import app

FOREWORD = """# Command line

Made from the code. `delta-attnmask COMMAND --help` says the same; `python -m delta_attnmask` is the same program.
Exit code 0 is success, 2 input, settings or folders that can't be used, 130 Ctrl-C.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = app.generate_docs(output_format="markdown", recursive=True, heading_level=2)
    files.append(File.generated(config, "cli.md", content=FOREWORD + pages))
    return files
