"""The proof: models trained on the kept rows and on others, all asked the same test questions, and what that shows.

The rule. The selected rows beat others where their models give more exact answers: the 95 % interval of the paired
difference (rows that share an image are drawn together) lies above 0, and so does the mean over the seeds less two of
its standard errors. Where no model gets 5 % of the answers exactly right, as with free text, the loss decides instead.
"""

import gc
import sys
from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from delta_attnmask.evaluating.comparing import compare_evaluations
from delta_attnmask.progress import print_note, show_phases, show_progress
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.running.plan import ModelSource, RunPlan
from delta_attnmask.storage import read_object

UNTOUCHED, KEPT = "untouched", "kept"
_MIN_EXACT = 0.05
_NAMES = {"random": "as many random rows", "full": "all rows", UNTOUCHED: "the untouched model"}


class Proof:
    """Trainings and evaluations below a run's folder, and DIR/proof.json.

    open_part: gives the rows of "kept", "random", "full" and "test", as `Run.open_part`.
    """

    def __init__(
        self,
        out: Path,
        plan: RunPlan,
        source: ModelSource,
        open_part: Callable[[str], FileRows],
        compute: Mapping[str, Any],
        *,
        shown: bool,
    ) -> None:
        self._out, self._plan, self._source, self._open = out, plan, source, open_part
        self._compute, self._shown = compute, shown

    @property
    def trained(self) -> dict[str, list[Path]]:
        """The folders of the models by what they are trained on, one for each seed."""
        names = (KEPT, *self._plan.opponents) if self._plan.opponents else ()
        seeds = range(self._plan.seed, self._plan.seed + self._plan.seeds)
        return {name: [self._out / "train" / f"{name}-{seed}" for seed in seeds] for name in names}

    @property
    def evaluated(self) -> dict[str, list[Path]]:
        """The folders of the evaluations, the untouched model's last."""
        found = {name: [self._out / "eval" / one.name for one in folders] for name, folders in self.trained.items()}
        return found | {UNTOUCHED: [self._out / "eval" / UNTOUCHED]}

    @property
    def is_trained(self) -> bool:
        return all((folder / "train.json").exists() for folders in self.trained.values() for folder in folders)

    @property
    def is_evaluated(self) -> bool:
        return all((folder / "evaluation.json").exists() for folders in self.evaluated.values() for folder in folders)

    def count(self, n_kept: int, n_pool: int) -> tuple[float, int]:
        """How many rows all trainings see, each as often as it comes, and how many models are evaluated."""
        plan, sizes = self._plan, {KEPT: n_kept, "random": n_kept, "full": n_pool}
        n_rows = [sizes[name] for name, folders in self.trained.items() for _ in folders]
        n_steps = plan.max_steps and plan.max_steps * plan.batch_size * plan.accumulate
        return sum(n_steps or plan.epochs * n for n in n_rows), 1 + len(n_rows)

    def read(self) -> dict[str, Any] | None:
        """What DIR/proof.json says; None where there is none of these very models."""
        found = read_object(self._out / "proof.json")
        names = {name: [folder.name for folder in folders] for name, folders in self.evaluated.items()}
        return found if found.get("folders") == names else None

    def train(self) -> None:
        """Train each model that isn't trained yet."""
        from delta_attnmask.modeling.devices import choose_device
        from delta_attnmask.modeling.load import load_model
        from delta_attnmask.training.finetuning import train_dataset, training_dtype

        for name, folders in self.trained.items():
            for number, folder in enumerate(folders):
                if (folder / "train.json").exists():
                    continue
                source, plan = self._source, self._plan.training(number)
                dtype: Any = source.dtype
                if dtype == "auto":
                    dtype = str(training_dtype(plan, choose_device(source.device))).removeprefix("torch.")
                loaded = load_model(source.model, dtype=dtype, device=source.device, revision=source.revision)
                self._say(f"training on {name}, seed {plan.seed}")
                with show_phases(shown=self._shown) as advance:
                    train_dataset(
                        loaded,
                        self._open(name),
                        folder,
                        plan,
                        max_failed=self._plan.max_failed,
                        n_workers=self._compute.get("workers"),
                        command=tuple(sys.argv),
                        on_progress=advance,
                    )
                del loaded
                _free_memory()

    def evaluate(self) -> None:
        """Let each model answer the test split that hasn't yet."""
        from delta_attnmask.evaluating.evaluation import EvaluationPlan, evaluate_dataset
        from delta_attnmask.modeling.load import load_model

        source, test = self._source, self._open("test")
        models = {self._out / "train" / out.name: out for name in self.trained for out in self.evaluated[name]}
        plan = EvaluationPlan(image_swap=False, max_new_tokens=self._plan.max_new_tokens, **self._eval_options)
        for model, out in [*models.items(), (source.model, self._out / "eval" / UNTOUCHED)]:
            if (out / "evaluation.json").exists():
                continue
            revision = source.revision if out.name == UNTOUCHED else None
            loaded = load_model(str(model), dtype=source.dtype, device=source.device, revision=revision)
            with show_progress(f"answering, {out.name}", test.n_rows, shown=self._shown) as advance:
                evaluate_dataset(loaded, test, out, plan, command=tuple(sys.argv), on_progress=advance)
            del loaded
            _free_memory()

    def compare(self) -> dict[str, Any]:
        """What proof.json is to hold."""
        evaluated = self.evaluated
        measures = {
            measure: {
                name: compare_evaluations(
                    [(one, folder) for one in (name, KEPT) for folder in evaluated[one]],
                    baseline=name,
                    measure=measure,
                )
                for name in evaluated
                if name != KEPT
            }
            for measure in ("exact", "loss")
        }
        models = {
            name: {measure: found[of]["methods"][name]["pooled"] for measure, found in measures.items()}
            for name in evaluated
            for of in [name if name != KEPT else UNTOUCHED]
        }
        decides = "exact" if max(one["exact"]["value"] for one in models.values()) >= _MIN_EXACT else "loss"
        against = {
            name: {measure: found[name]["methods"][KEPT]["against_baseline"] for measure, found in measures.items()}
            for name in evaluated
            if name != KEPT
        }
        beats = {name: _is_better(one[decides], decides) for name, one in against.items()}
        keep = str(self._plan.keep)
        budget = keep.replace("%", " %") if keep.endswith("%") else f"{keep} rows"
        return {
            "schema": 1,
            "folders": {name: [folder.name for folder in folders] for name, folders in evaluated.items()},
            "decides": decides,
            "n_test_rows": measures["exact"][UNTOUCHED]["n_rows"],
            "models": models,
            "against": against,
            "beats": beats,
            "is_no": not beats["random"],
            "sentences": [_say(budget, name, one, beats[name]) for name, one in against.items()],
        }

    @property
    def _eval_options(self) -> dict[str, Any]:
        return {name: value for name, value in self._compute.items() if name in ("batch_tokens", "workers")}

    def _say(self, line: str) -> None:
        if self._shown:
            print_note(line)


def _is_better(difference: Mapping[str, Any], measure: str) -> bool:
    """Whether a difference is surely one for the better; see the rule above."""
    sign = -1 if measure == "loss" else 1
    rows, seeds = difference["pooled"], difference["by_seed"]
    surely = min(sign * rows["low"], sign * rows["high"]) > 0
    if seeds["sd"] is not None:
        mean = sum(seeds["values"]) / len(seeds["values"])
        surely &= sign * mean > 2 * seeds["sd"] / sqrt(len(seeds["values"]))
    return bool(surely)


def _say(budget: str, name: str, difference: Mapping[str, Any], is_better: bool) -> str:
    """One sentence with both figures."""
    exact, loss = (difference[measure]["pooled"] for measure in ("exact", "loss"))
    points, nats = (
        f"{scale * one['value']:+.{digits}f} ({scale * one['low']:+.{digits}f} to {scale * one['high']:+.{digits}f})"
        for one, scale, digits in ((exact, 100, 1), (loss, 1, 3))
    )
    is_share = budget.endswith("%")
    verb = ("beats" if is_share else "beat") if is_better else f"{'does' if is_share else 'do'}n't beat"
    return f"the selected {budget} {verb} {_NAMES[name]}: exact answers {points} points, loss {nats} nats"


def _free_memory() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()
