"""The command line: one file a command, imported when it is called. No command raises to the user: see `main`."""

import os
import sys

from cyclopts import App

from delta_attnmask import __version__
from delta_attnmask.errors import DeltaAttnMaskError

app = App(
    name="delta-attnmask",
    help="Score image-text conversations with a vision-language model and select the part worth finetuning on.",
    version=__version__,
    result_action="return_value",
)
app.command("delta_attnmask.cli.check:check", help="Validate a data set without a model.")
app.command("delta_attnmask.cli.score:score", help="Score every row of a data set into a run folder.")
app.command("delta_attnmask.cli.select:select", help="Write the best rows of a scored data set.")


def main() -> None:
    """Run one command. Exit code 2 is for input, settings or folders that can't be used, 130 for Ctrl-C."""
    try:
        code = app()
        sys.stdout.flush()
    except DeltaAttnMaskError as error:
        print(f"delta-attnmask: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("delta-attnmask: stopped; start the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has gone; Python must not try to flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code)
