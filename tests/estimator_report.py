"""Print what scikit-learn's own checks say of the estimators: python tests/estimator_report.py [BACKEND ...]."""

import re
import sys
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple
from unittest import SkipTest

from sklearn.utils.estimator_checks import estimator_checks_generator

import d2ldrop
from d2ldrop.estimators import DropoutClassifier, DropoutRegressor

BACKENDS = ("numpy", "torch", "jax", "tf", "mxnet")

SMALL = {"hidden_layer_sizes": (16, 16), "dropout": 0.1, "learning_rate_init": 0.02, "max_iter": 20}
"""Enough to learn the data of the checks, which are few and small."""

EXPECTED_TO_FAIL = {
    "DropoutRegressor": {
        "check_regressor_multioutput": "several targets are predicted as float32, in which networks compute, "
        "and the check wants float64"
    }
}
"""By the name of the estimator: check -> why it is expected to fail."""

UP_TO_ROUNDING = {
    "check_methods_sample_order_invariance": "the BLAS rounds a row of a product by its place, and the check wants "
    "the precision of float64"
}
"""Checks that may fail, by float32's rounding, where the processor's BLAS is of that kind -> why."""

ROUNDING = re.compile(r"Max absolute difference(?: among violations)?: (\S+)")


class Result(NamedTuple):
    """What came of one check."""

    check: str
    status: str  # passed, skipped, failed, failed as expected, or passed unexpectedly
    reason: str = ""


def checked(kind: Any, backend: str, only: Collection[str] = (), leave_out: Collection[str] = ()) -> list[Result]:
    """Run the checks, all unless some are named, and return what came of each."""
    results = []
    for estimator, check in estimator_checks_generator(kind(backend=backend, **SMALL)):
        function = check.func if hasattr(check.func, "__name__") else check.func.func  # of a partial one
        name = function.__name__
        expected = EXPECTED_TO_FAIL.get(kind.__name__, {}).get(name)
        if (only and name not in only) or name in leave_out:
            continue
        try:
            check(estimator)
        except SkipTest as error:
            results.append(Result(name, "skipped", str(error)))
        except Exception as error:
            differs = ROUNDING.search(str(error))
            if name in UP_TO_ROUNDING and differs and float(differs[1]) < 1e-6:
                expected = UP_TO_ROUNDING[name]
            status = "failed as expected" if expected else "failed"
            results.append(Result(name, status, expected or f"{type(error).__name__}: {error}"))
        else:
            results.append(Result(name, "passed unexpectedly" if expected else "passed"))
    return results


def main() -> int:
    """Print a line for each estimator and backend, and one for each check that did not pass; 1 if one failed."""
    wrong = False
    for backend in sys.argv[1:] or [name for name in BACKENDS if name in d2ldrop.available()]:
        for kind in (DropoutClassifier, DropoutRegressor):
            results = checked(kind, backend)
            counts = Counter(result.status for result in results)
            print(f"{backend:<6} {kind.__name__:<17} " + ", ".join(f"{n} {status}" for status, n in counts.items()))
            for result in results:
                if result.status != "passed":
                    print(f"       {result.status}: {result.check}: {result.reason}", flush=True)
            wrong = wrong or any(counts[status] for status in ("failed", "passed unexpectedly"))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
