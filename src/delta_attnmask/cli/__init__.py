"""The command line: one file a command, imported when it is called. No command raises to the user: see `main`."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, Parameter

from delta_attnmask import __version__
from delta_attnmask.errors import DeltaAttnMaskError
from delta_attnmask.executing.process import keep_freed_memory, wait_briefly


def _read_config(*given: Any) -> None:
    from delta_attnmask.cli.options import read_config

    read_config(*given)


app = App(
    name="delta-attnmask",
    help="Score image-text conversations with a vision-language model and select the part worth finetuning on.",
    version=__version__,
    default_parameter=Parameter(
        negative=(),  # no --no-sweep and --empty-data, which would say nothing
        show_default=lambda value: None if value is None or value is False else str(value),
    ),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    config=_read_config,
)
app.command("delta_attnmask.cli.check:check", help="Validate a data set without a model.")
app.command("delta_attnmask.cli.run:run", help="From data to a selection that is proven better than chance.")
app.command("delta_attnmask.cli.split:split", help="Set a test split aside, of which no image stays in the rest.")
app.command("delta_attnmask.cli.calibrate:calibrate", help="Find the setting that suits a model and a data set.")
app.command("delta_attnmask.cli.estimate:estimate", help="Estimate how long scoring takes, and whether it pays.")
app.command("delta_attnmask.cli.score:score", help="Score every row of a data set into a run folder.")
app.command("delta_attnmask.cli.demo:demo", help="Calibrate, score and select on the embedded data.")
app.command("delta_attnmask.cli.score:merge", help="Check a run of several processes and merge its files.")
app.command("delta_attnmask.cli.select:select", help="Write the best rows of a scored data set.")
app.command("delta_attnmask.cli.train:train", help="Finetune a model on a data set, such as the selected part.")
app.command("delta_attnmask.cli.export:export", help="Write a scored data set for a trainer, or with its scores.")
app.command("delta_attnmask.cli.evaluate:evaluate", help="Let a model answer a test set and measure the answers.")
app.command("delta_attnmask.cli.compare:compare", help="Compare evaluations of several models.")
app.command("delta_attnmask.cli.export_eval:export_eval", help="Write a test set for lmms-eval or VLMEvalKit.")
app.command("delta_attnmask.cli.audit:audit", help="Show what a score and a selection do to the data.")
app.command("delta_attnmask.cli.report:report", help="Write one HTML page that shows a run and what is selected of it.")
app.command("delta_attnmask.cli.inspect:inspect", help="Show where the model looked in single rows.")
app.command("delta_attnmask.cli.attention:attention", help="Show where two models' attention goes, and what changed.")
app.command("delta_attnmask.cli.review:review", help="Let people judge blindly whether the selected rows are better.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, by default that of `sys.argv`, and exit.

    Exit code 1 is for more failed rows than --max-failed allows and for a reader that has gone, 2 for usage, input,
    settings or folders that can't be used, 3 for `--strict` and a verdict that says no, 130 for Ctrl-C.
    """
    wait_briefly()
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image becomes its row's reason
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given and given[0] in app and not given[0].startswith("-"):
            app[given[0]].help = None  # its own help is the whole docstring, not the line in the list of commands
        code = app(given)
        sys.stdout.flush()
    except DeltaAttnMaskError as error:
        from delta_attnmask.cli.terminal import printable

        print(f"delta-attnmask: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("delta-attnmask: stopped; rerun the same command to resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has gone; Python must not try to flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code)
