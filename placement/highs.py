"""HiGHS behind one function: arrays in, status, solution, bound and time out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import highspy
import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STATUS = {
    highspy.HighsModelStatus.kOptimal: "optimal",
    highspy.HighsModelStatus.kInfeasible: "infeasible",
    highspy.HighsModelStatus.kTimeLimit: "time",
    highspy.HighsModelStatus.kIterationLimit: "iterations",
    highspy.HighsModelStatus.kSolutionLimit: "nodes",
}


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A linear or mixed-integer program, to be minimised: ``row_lower <= A x <= row_upper``.

    Attributes
    ----------
    cost, lower, upper
        float64 [columns].
    start, index, value
        The matrix by columns (CSC): int32 [columns + 1], int32 and float64 [non-zeros].
    row_lower, row_upper
        float64 [rows].
    integer
        Whether every column must be integral.
    """

    cost: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    start: NDArray[np.int32]
    index: NDArray[np.int32]
    value: NDArray[np.float64]
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    integer: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SolveResult:
    """What came of a `Program`.

    Attributes
    ----------
    status
        ``optimal``, ``infeasible``, or the limit that stopped the search: ``time``,
        ``iterations``, ``nodes``.
    x
        float64 [columns]: the best solution found, or None.
    objective
        Its cost, or None.
    bound
        Proven lower bound on the cost. For a linear program it is recomputed here from the
        duals by weak duality, so it holds whatever the solver's tolerances.
    seconds
        Wall time of passing and solving.
    row_dual
        float64 [rows]: multipliers of a linear program's rows where the solver left some, else
        empty.
    """

    status: str
    x: NDArray[np.float64] | None
    objective: float | None
    bound: float
    seconds: float
    row_dual: NDArray[np.float64]


def solve(
    program: Program, *, time_limit_s: float | None = None, node_limit: int | None = None
) -> SolveResult:
    """Minimise `program`: linear ones by dual simplex without presolve (they are flows).

    Raises
    ------
    PlacementError
        If HiGHS refuses the model or an option, or stops for a reason we do not know.
    """
    begun = time.perf_counter()
    highs = _configured(program, time_limit_s, node_limit)
    if highs.run() == highspy.HighsStatus.kError:
        raise PlacementError("HiGHS failed to run the model")
    code = highs.getModelStatus()
    if code not in _STATUS:
        raise PlacementError(f"HiGHS stopped with status '{highs.modelStatusToString(code)}'")
    info = highs.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    solution = highs.getSolution()
    row_dual = np.asarray(solution.row_dual, dtype=np.float64)
    bound = float(info.mip_dual_bound) if program.integer else dual_bound(program, row_dual)
    return SolveResult(
        status=_STATUS[code],
        x=np.asarray(solution.col_value, dtype=np.float64) if found else None,
        objective=float(info.objective_function_value) if found else None,
        bound=bound,
        seconds=time.perf_counter() - begun,
        row_dual=row_dual,
    )


def dual_bound(program: Program, row_dual: NDArray[np.float64]) -> float:
    """Lower bound on a program's cost from any row multipliers (weak duality).

    ``sum_i y_i * (row_lower_i if y_i > 0 else row_upper_i)
    + sum_j min over x_j in [lower_j, upper_j] of (c - A'y)_j x_j``.
    """
    if row_dual.size != program.row_lower.size:
        return -np.inf
    column = np.repeat(np.arange(program.cost.size), np.diff(program.start))
    priced = np.bincount(
        column, weights=program.value * row_dual[program.index], minlength=program.cost.size
    )
    reduced = program.cost - priced
    return _least(row_dual, program.row_lower, program.row_upper) + _least(
        reduced, program.lower, program.upper
    )


def _least(
    price: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> float:
    """Sum of the least value of each price times its variable; a price of 0 costs nothing."""
    bound = np.where(price > 0, lower, upper)
    return float(np.sum(price[price != 0] * bound[price != 0]))


def _configured(
    program: Program, time_limit_s: float | None, node_limit: int | None
) -> highspy.Highs:
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    options: dict[str, bool | int | float | str] = {
        "output_flag": False,
        "threads": 1,
        "random_seed": 0,
    }
    if not program.integer:
        options |= {"presolve": "off", "solver": "simplex"}
    if time_limit_s is not None:
        options["time_limit"] = float(time_limit_s)
    if node_limit is not None:
        options["mip_max_nodes"] = int(node_limit)
    for name, value in options.items():
        if highs.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise PlacementError(f"HiGHS refused option {name} = {value!r}")
    columns, rows = program.cost.size, program.row_lower.size
    integrality = np.full(columns, int(program.integer), dtype=np.int32)
    status = highs.passModel(
        columns,
        rows,
        program.value.size,
        int(highspy.MatrixFormat.kColwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        program.cost,
        program.lower,
        program.upper,
        program.row_lower,
        program.row_upper,
        program.start,
        program.index,
        program.value,
        integrality,
    )
    if status == highspy.HighsStatus.kError:
        raise PlacementError("HiGHS refused the model")
    return highs
