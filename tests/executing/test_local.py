"""Units one after the other, the next one prepared meanwhile."""

import threading

import pytest

from delta_attnmask.executing.local import run_units


def test_results_come_in_order() -> None:
    assert list(run_units(range(20), lambda unit: unit * 2, lambda prepared: prepared + 1)) == [*range(1, 41, 2)]
    assert list(run_units([], str, str)) == []


def test_the_next_unit_is_prepared_while_one_is_computed_and_no_more() -> None:
    prepared: list[int] = []
    is_prepared = [threading.Event() for _ in range(6)]

    def prepare(unit: int) -> int:
        prepared.append(unit)
        is_prepared[unit].set()
        return unit

    def compute(unit: int) -> int:
        assert unit == 4 or is_prepared[unit + 1].wait(10)
        assert max(prepared) <= unit + 1
        return unit

    assert list(run_units(range(5), prepare, compute)) == [*range(5)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("stage", ["prepare", "compute"])
@pytest.mark.parametrize("overlaps", [True, False])
def test_an_exception_ends_the_run_at_its_unit(overlaps: bool, stage: str, error: type[BaseException]) -> None:
    def fail_at_2(unit: int) -> int:
        if unit == 2:
            raise error("planned")
        return unit

    stages = {"prepare": lambda unit: unit, "compute": lambda unit: unit} | {stage: fail_at_2}
    units = run_units(range(5), stages["prepare"], stages["compute"], overlaps=overlaps)
    assert [next(units), next(units)] == [0, 1]
    with pytest.raises(error, match="planned"):
        next(units)
    assert list(units) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_without_overlap_each_is_prepared_in_its_turn_by_this_thread() -> None:
    steps: list[tuple[str, int, threading.Thread]] = []

    def step(name: str, unit: int) -> int:
        steps.append((name, unit, threading.current_thread()))
        return unit

    units = run_units(range(3), lambda unit: step("prepare", unit), lambda unit: step("compute", unit), overlaps=False)
    assert list(units) == [0, 1, 2]
    here = threading.current_thread()
    assert steps == [(name, unit, here) for unit in range(3) for name in ("prepare", "compute")]


def test_leaving_early_leaves_no_thread() -> None:
    units = run_units(range(5), lambda unit: unit, lambda unit: unit)
    assert next(units) == 0
    units.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]
