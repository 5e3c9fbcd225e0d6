"""AutoGuides of fitted runs: they make their parameters at the first inputs, and so take up their state only then."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from bmtl import inputs
from bmtl.inference.draws import evaluating
from bmtl.inference.loaders import forked
from bmtl.inference.predicted_sites import targets_of_site


class LateGuide:
    """An AutoGuide that has not run yet, and the state that it is to have.

    Args:
        guide: The guide.
        state: Of the trained one.
    """

    def __init__(self, guide: AutoGuide, state: Mapping[str, Tensor]) -> None:
        self.guide, self.state = guide, state

    def on(self, model: nn.Module, x: Any) -> AutoGuide:
        """The guide with its state, set up on new inputs; what the model predicts is not taken for a latent."""
        if self.guide.prototype_trace is None:
            with evaluating(model, self.guide), forked(None):
                model.__dict__["forward"] = _Observed()(model.forward)  # inside the guide's own handlers
                try:
                    self.guide(inputs.few(x))
                finally:
                    del model.__dict__["forward"]
            self.guide.load_state_dict(self.state)
            self.guide.to(next(model.parameters()).dtype)
        return self.guide


FittedNetwork = tuple[nn.Module, Callable[..., None] | LateGuide]


class _Observed(Messenger):
    """Observes the sites that predict targets at a draw of theirs: in training they had labels."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and targets_of_site(msg) is not None:
            msg["value"], msg["is_observed"] = msg["fn"].sample(), True
