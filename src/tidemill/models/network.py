"""A network of PyTorch and what its numbers mean, which the module itself does not say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core import DefinitionError

GIVES = ("prediction", "probability", "probabilities", "logits")


@dataclass(frozen=True)
class Network:
    """A `torch.nn.Module` that takes a matrix of features (n, f), in evaluation mode, and what it `gives` for each row: a "prediction" (one
    number or several), the "probability" of the second of two classes, the "probabilities" of each, or "logits", of which one becomes a
    probability by the sigmoid and several become probabilities by softmax. `classes` are their names, by default 0, 1, …; `rounds` how
    often training went over the data. Raises DefinitionError for what is no such thing."""

    module: Any
    gives: str = "prediction"
    classes: Sequence[Any] = ()
    rounds: int = 1

    def __post_init__(self) -> None:
        if not is_module(self.module):
            raise DefinitionError(
                f"{type(self.module).__name__} is no torch.nn.Module", hint='for example tm.Network(module, gives="logits")'
            )
        if self.gives not in GIVES:
            raise DefinitionError(f"gives={self.gives!r} is not known", available=list(GIVES))
        if self.classes and (self.gives == "prediction" or len(set(self.classes)) < max(2, len(self.classes))):
            what = f"the classes {list(self.classes)} of a network that gives {self.gives}"
            raise DefinitionError(what, hint="a classifier has two or more, all different; a prediction has none")


def is_module(model: Any) -> bool:
    """Whether it is a network, of whatever class: PyTorch is not imported to find out."""
    return any(one.__module__ == "torch.nn.modules.module" for one in type(model).__mro__)
