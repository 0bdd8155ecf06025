"""The command line: one file a command, imported when it is called. No command raises to the user: see `main`."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, Group, Parameter

from delta_attnmask import __version__
from delta_attnmask.errors import DeltaAttnMaskError
from delta_attnmask.executing.process import keep_freed_memory, wait_briefly

MAIN = Group("Parameters", sort_key=0)  # of each command, before the groups of `options`


def _read_config(*given: Any) -> None:
    from delta_attnmask.cli.options import read_config

    read_config(*given)


app = App(
    name="delta-attnmask",
    help="Score image-text conversations with a vision-language model and select the part worth finetuning on.",
    version=__version__,
    group_parameters=MAIN,
    default_parameter=Parameter(
        negative=(),  # no --no-sweep and --empty-data, which would say nothing
        show_default=lambda value: None if value is None or value is False else str(value),
    ),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    config=_read_config,
)
# In the order of work; each is imported when it is called.
_COMMANDS = {
    "check:check": "Validate a data set without a model.",
    "run:run": "Go from data to a selection, and with --prove to its proof.",
    "calibrate:calibrate": "Learn from planted defects which score ranks good rows first.",
    "score:score": "Score every row of a data set into a run folder.",
    "select:select": "Write the best rows of a scored data set.",
    "report:report": "Write one HTML page that shows a run and what is selected of it.",
    "split:split": "Set a test split aside that shares no image with the rest.",
    "estimate:estimate": "Estimate how long scoring takes, and whether it pays.",
    "score:merge": "Check a run of several processes and merge its files.",
    "export:export": "Write a scored data set for a trainer, or with its scores.",
    "audit:audit": "Show what a score and a selection do to the data.",
    "worst:worst": "Show the rows that rank lowest, with their images.",
    "inspect:inspect": "Show where the model looked in single rows.",
    "review:review": "Let people judge blindly whether the selected rows are better.",
    "train:train": "Finetune a model on a data set, such as the selected part.",
    "evaluate:evaluate": "Let a model answer a test set and measure the answers.",
    "compare:compare": "Compare evaluations of several models.",
    "export_eval:export_eval": "Write a test set for lmms-eval or VLMEvalKit.",
    "attention:attention": "Show where two models' attention goes, and what changed.",
    "demo:demo": "Calibrate, score and select on the embedded data.",
}
for _number, (_place, _help) in enumerate(_COMMANDS.items()):
    app.command(f"delta_attnmask.cli.{_place}", help=_help, sort_key=_number)


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
