"""Networks in eight bits, trained on scikit-learn's digits: bytes, time of a row, and what is lost on 597 rows that were kept back.

python benchmarks/int8.py
"""

import warnings

from measure import say_where
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import tidemill as tm
from tidemill.core import NoExactForm

WIDTHS = ((64, 64), (512, 512))
KEPT = 1_200


def main() -> None:
    say_where("onnxruntime", "scikit-learn", "skl2onnx")
    X, y = load_digits(return_X_y=True)
    for widths in WIDTHS:
        with warnings.catch_warnings(action="ignore"):
            model = MLPClassifier(widths, random_state=0).fit(X[:KEPT], y[:KEPT])
        try:
            told = tm.convert(model, X[KEPT:], quantise=tm.Int8(most_loss=0.2), labels=y[KEPT:]).parity
        except NoExactForm as error:
            print(f"{widths}: {error}")
            continue
        both = [(name, told[f"int8_{name}_before"], told[f"int8_{name}_after"]) for name in ("bytes", "row_us", "log_loss")]
        shares = [f"{name} {before:,.6g} → {after:,.6g}" for name, before, after in both]
        print(f"{widths}: {', '.join(shares)}, a score by {told['int8_difference']:.3g}, labels {told['int8_labels_differ']}", flush=True)


if __name__ == "__main__":
    main()
