"""The base class of estimators: parameters, training, files."""

import json
import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from bmtl.datasets import MultiTaskData
from bmtl.estimators.columns import Column, columns_of, not_numbers, split, warn_of_another_order
from bmtl.evaluation import results
from bmtl.evaluation.storage import atomic
from bmtl.experiments import Budget, Fitted, Method, load_fitted, method, run
from bmtl.targets import Prediction

SCHEMA = 1
FILE = "estimator.json"


class MultiTaskBase(BaseEstimator):
    """Trains one of bmtl's methods on a table, by default with the default network and schedule.

    Args:
        method: Name of `bmtl list methods` or `bmtl list balancers`, an import path, or a `bmtl.experiments.Method`.
        trunk: Name of a network; None is that of tables, "tabular".
        widths: Widths of its layers.
        steps: Number of steps; see `bmtl.experiments.Budget` for what is chosen where this and the following are None.
        epochs: Number of passes over the training rows, instead of steps.
        schedule: "cosine", "constant" or "plateau".
        batch_size: Rows in a batch.
        lr: Learning rate, at its highest.
        draws: Draws of a prediction.
        validation: Share of the rows that training is validated and noise is fitted on.
        random_state: Of the validation rows, initial weights, batches and draws.

    Attributes:
        results_: The results tree of the validation rows, for `bmtl.evaluation` and ArviZ.
        target_names_: Names of the targets: columns of a data frame, else ``y``, or ``y0``, ``y1`` and so on.
        n_iter_: Number of steps taken.
    """

    def __init__(
        self,
        method: str | Method = "uw",
        *,
        trunk: str | None = None,
        widths: tuple[int, ...] = (128, 128),
        steps: int | None = None,
        epochs: int | None = None,
        schedule: str | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        draws: int = 100,
        validation: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.method = method
        self.trunk = trunk
        self.widths = widths
        self.steps = steps
        self.epochs = epochs
        self.schedule = schedule
        self.batch_size = batch_size
        self.lr = lr
        self.draws = draws
        self.validation = validation
        self.random_state = random_state

    # ---- What subclasses say -------------------------------------------------------------------------------------

    @abstractmethod
    def _column(self, name: str, values: np.ndarray) -> Column:
        """One target of its labels as they come."""

    # ---- Training ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on rows with and without all labels.

        Args:
            X: Features ``(N, D)``, numbers without gaps; a data frame's columns are known by name afterwards.
            y: Labels ``(N,)`` or ``(N, T)``; missing ones are NaN or None.

        Returns:
            The estimator itself.

        Raises:
            ValueError: If a shape or label is invalid, a target has fewer than two labels, or a parameter is out of range.
        """
        if words := not_numbers(X):
            raise ValueError(
                f"Features are numbers, and the columns {', '.join(words)} hold text or dates. Encode them before, as "
                "scikit-learn's OneHotEncoder does in a pipeline; MultiTaskData.from_frame and `bmtl train` encode them."
            )
        features = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        names, values, flat = columns_of(y)
        check_consistent_length(features, values[0])
        warn_of_another_order(X, y)
        columns = [self._column(name, labels) for name, labels in zip(names, values, strict=True)]
        if not 0 < self.validation < 1:
            raise ValueError(
                f"validation is a share of the rows, above 0 and below 1, and {self.validation} was given."
            )
        random = check_random_state(self.random_state)
        data = MultiTaskData.from_arrays(
            "data",
            features,
            {column.name: column.labels for column in columns},
            split(columns, self.validation, random),
            families={column.name: column.family for column in columns},
            clip=5.0,
            features=list(getattr(self, "feature_names_in_", ())),
        )
        budget = Budget(
            steps=self.steps,
            epochs=self.epochs,
            schedule=self.schedule,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            lr=self.lr,
            widths=self.widths,
            draws=self.draws,
        )
        with tempfile.TemporaryDirectory() as folder:
            seed = int(random.randint(2**31 - 1))
            tree = run(data, self._method(), seed, budget, folder, keep_model=True, scored=False)
            self._model = (Path(folder) / "model.pt").read_bytes()
        self.results_ = tree
        self.n_iter_ = int(tree["training"].to_dataset()["step"].values[-1]) + 1
        self._take_up({column.name: column.classes for column in columns}, flat)
        return self

    def _method(self) -> Method:
        chosen = method(self.method)
        return chosen if self.trunk is None else chosen.on_trunk(self.trunk)

    def _take_up(self, classes: Mapping[str, np.ndarray | None], flat: bool) -> None:
        """Sets what follows from the labels."""
        self.target_names_ = list(classes)
        self.n_outputs_ = len(classes)
        self._classes, self._flat = dict(classes), flat
        self._fitted = _model_of(self._model)

    # ---- Prediction ----------------------------------------------------------------------------------------------

    def _predictions(self, X: Any) -> dict[str, Prediction]:
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=np.float64)
        return self._fitted.predictions(features)

    # ---- Files ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Writes the fitted estimator to a folder: ``model.pt``, ``results.nc`` and ``estimator.json``, without pickle.

        It is the folder of a run too, for ``bmtl predict`` and ``bmtl report``.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If a parameter is not a plain value.
            OSError: If the folder cannot be written.
        """
        check_is_fitted(self)
        parameters = {**self.get_params(deep=False), "widths": list(self.widths)}
        about = {
            "schema": SCHEMA,
            "class": type(self).__name__,
            "parameters": parameters,
            "features": self.n_features_in_,
            "feature_names": getattr(self, "feature_names_in_", np.array([])).tolist(),
            "classes": {name: None if kept is None else kept.tolist() for name, kept in self._classes.items()},
            "flat": self._flat,
            "steps": self.n_iter_,
        }
        try:
            text = json.dumps(about, indent=1)
        except TypeError as error:
            raise ValueError(
                f"A parameter of the estimator cannot be kept in a file: {error}. Give plain values."
            ) from error
        with results.output_folder(folder) as out:
            with atomic(out / "model.pt") as temporary:
                temporary.write_bytes(self._model)
            results.write(self.results_, out / "results.nc")
            with atomic(out / FILE) as temporary:
                temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The inverse of `save`.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it holds no estimator of this class, or files are damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"There is no {path}. Give the folder that an estimator's save() wrote.")
        about = json.loads(path.read_text(encoding="utf-8"))
        if (about.get("schema"), about.get("class")) != (SCHEMA, cls.__name__):
            raise ValueError(
                f"{path} is of a {about.get('class')} in layout {about.get('schema')}, and a {cls.__name__} in layout "
                f"{SCHEMA} is expected. Load it by its own class, or fit again."
            )
        parameters = about["parameters"]
        found = cls(**{**parameters, "widths": tuple(parameters["widths"])})
        found.n_features_in_ = about["features"]
        if about["feature_names"]:
            found.feature_names_in_ = np.array(about["feature_names"], dtype=object)
        found._model = (Path(folder) / "model.pt").read_bytes()
        found.results_, found.n_iter_ = results.read(Path(folder) / "results.nc"), about["steps"]
        found._take_up(
            {name: None if kept is None else np.array(kept) for name, kept in about["classes"].items()}, about["flat"]
        )
        return found

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_fitted", None)  # made of the file's bytes again
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_model" in state:
            self._fitted = _model_of(self._model)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        tags.non_deterministic = False
        return tags

    results_: xr.DataTree
    _fitted: Fitted


def _model_of(file: bytes) -> Fitted:
    """The model of a file's bytes, in float64: predictions then do not depend on the rows next to a row."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.pt").write_bytes(file)
        return load_fitted(folder).double()
