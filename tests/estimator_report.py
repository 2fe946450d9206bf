"""Print what scikit-learn's own checks say of the estimators: python tests/estimator_report.py [BACKEND ...]."""

import sys
from collections import Counter
from typing import Any

from sklearn.utils.estimator_checks import check_estimator

import d2ldrop
from d2ldrop.estimators import DropoutClassifier, DropoutRegressor

BACKENDS = ("numpy", "torch", "jax", "tf", "mxnet")
SMALL = {"hidden_layer_sizes": (16, 16), "dropout": 0.1, "learning_rate_init": 0.02, "max_iter": 20}
"""Enough to learn the data of the checks, which are few and small."""

EXPECTED_TO_FAIL: dict[str, dict[str, str]] = {}
"""By the name of the estimator: check -> why it is expected to fail."""


def checked(kind: Any, backend: str) -> list[dict[str, Any]]:
    """Run all checks; return scikit-learn's result of each."""
    expected = EXPECTED_TO_FAIL.get(kind.__name__)
    results: list[dict[str, Any]] = check_estimator(
        kind(backend=backend, **SMALL), on_skip=None, on_fail=None, expected_failed_checks=expected
    )
    return results


def main() -> int:
    """Print a line for each estimator and backend, and one for each check that did not pass; 1 if one failed."""
    failed = False
    for backend in sys.argv[1:] or [name for name in BACKENDS if name in d2ldrop.available()]:
        for kind in (DropoutClassifier, DropoutRegressor):
            results = checked(kind, backend)
            counts = Counter(result["status"] for result in results)
            print(f"{backend:<6} {kind.__name__:<18} " + ", ".join(f"{n} {status}" for status, n in counts.items()))
            for result in results:
                if result["status"] != "passed":
                    reason = result["expected_to_fail_reason"] or result["exception"]
                    print(f"       {result['status']}: {result['check_name']}: {reason}")
            failed = failed or counts["failed"] > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
