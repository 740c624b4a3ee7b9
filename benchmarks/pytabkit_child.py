"""One of pytabkit's classifiers on one table, in the interpreter that has it: for ``tables.py``.

    PYTHON pytabkit_child.py FILE.npz CLASS SEED

FILE: features (rows, columns) with missing numbers as NaN, count (of numbers, the first columns), targets, train, test
(rows). The last line is what it comes to: {"accuracy": %, "loss": …, "seconds": of the fit}. One thread.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas
import pytabkit
import torch
from sklearn.metrics import accuracy_score, log_loss


def main() -> None:
    path, name, seed = sys.argv[1:]
    torch.set_num_threads(1)
    rows = np.load(path)
    features, count, targets, train, test = (rows[key] for key in ("features", "count", "targets", "train", "test"))
    medians = np.nanmedian(features[train][:, :count], axis=0)  # it takes no missing numbers
    numbers = np.where(np.isnan(features[:, :count]), medians, features[:, :count])
    frame = pandas.DataFrame(numbers, columns=[f"n{i}" for i in range(numbers.shape[1])])
    for column in range(int(count), features.shape[1]):
        frame[f"c{column}"] = pandas.Categorical(features[:, column].astype(int).astype(str))
    model = getattr(pytabkit, name)(random_state=int(seed), n_cv=1, n_refit=0, device="cpu", n_threads=1, verbosity=0)
    started = time.process_time()
    model.fit(frame.iloc[train], targets[train])
    seconds = time.process_time() - started
    probabilities = model.predict_proba(frame.iloc[test])
    accuracy = 100 * accuracy_score(targets[test], probabilities.argmax(1))
    loss = log_loss(targets[test], probabilities, labels=range(probabilities.shape[1]))
    print(json.dumps({"accuracy": accuracy, "loss": loss, "seconds": seconds}))


if __name__ == "__main__":
    main()
