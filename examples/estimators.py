"""bmtl in scikit-learn: three kinds of targets of one table, in a pipeline, a grid search and a file.

Run: python examples/estimators.py [--quick]

The table is made up: a house's price and rent (of which half are unknown) and its quarter follow from four features. Prints
scores, intervals and probabilities of new houses.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from bmtl.estimators import MultiTaskEstimator, MultiTaskRegressor


def houses(rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(0)
    area, age = random.uniform(30, 200, rows), random.uniform(0, 100, rows)
    floor, heating = random.integers(0, 8, rows), random.choice(["gas", "district", "wood"], rows)
    value = 2 + 0.02 * area + np.where(age > 60, 0.8, 0.0) + 0.3 * np.sin(age / 10) + 0.4 * (heating == "district")
    x = pd.DataFrame({"area": area, "age": age, "floor": floor, "heating": heating})
    y = pd.DataFrame(
        {
            "price": 100 * value + 15 * random.normal(size=rows),
            "rent": 300 * value * (1 + 0.02 * floor) + 60 * random.normal(size=rows),
            "quarter": np.where(age + 20 * random.normal(size=rows) > 55, "old town", "suburb"),
        }
    )
    y.loc[random.random(rows) < 0.5, "rent"] = np.nan
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows and steps: shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = 40 if options.quick else None  # None: what tables have by default
    x, y = houses(300 if options.quick else 2000)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
    numbers = make_column_transformer((OneHotEncoder(), ["heating"]), remainder="passthrough")

    # Numbers and classes together, in a pipeline; unknown rents are left out.
    model = make_pipeline(numbers, MultiTaskEstimator("igb-v1", steps=steps, random_state=0))
    model.fit(x_train, y_train)
    print(f"Mean of R2 (price, rent) and accuracy (quarter): {model.score(x_test, y_test):.3f}")
    new = numbers.transform(x_test[:3])
    print(model[-1].predict(new).round(1).to_string())
    print(model[-1].predict_proba(new)["quarter"].round(3).to_string())

    # Distributions of the numbers alone.
    real = ["price", "rent"]
    regressor = MultiTaskRegressor("uw", steps=steps, random_state=0)
    regressor.fit(numbers.transform(x_train), y_train[real])
    lower, upper = regressor.predict_dist(numbers.transform(x_test)).interval(0.9)
    inside = (y_test[real] >= lower) & (y_test[real] <= upper)
    covered = inside.where(y_test[real].notna()).astype(float).mean()
    print(f"90 % intervals hold {', '.join(f'{100 * share:.0f} % of {name}s' for name, share in covered.items())}.")

    # Which balancer, by cross-validation.
    search = GridSearchCV(regressor, {"method": ["ew", "uw"]}, cv=2)
    search.fit(numbers.transform(x_train), y_train[real])
    print(f"By cross-validation: {search.best_params_['method']}, R2 {search.best_score_:.3f}")

    # A folder keeps it; `bmtl report` and `bmtl predict` read the same folder.
    with tempfile.TemporaryDirectory() as folder:
        regressor.save(Path(folder) / "houses")
        again = MultiTaskRegressor.load(Path(folder) / "houses")
    print(f"Loaded again, same predictions: {np.array_equal(again.predict(new), regressor.predict(new))}")


if __name__ == "__main__":
    main()
