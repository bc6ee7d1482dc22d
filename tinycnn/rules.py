"""What the layers do to the signal on its way back: three ways of looking inside differ at the ReLU alone.

With y = max(x, 0) and dy coming back,

    gradient   dx = dy * (y > 0)                 Simonyan et al. 2013, arXiv:1312.6034
    deconvnet  dx = dy * (dy > 0)                Zeiler and Fergus 2013, arXiv:1311.2901
    guided     dx = dy * (y > 0) * (dy > 0)      Springenberg et al. 2014, arXiv:1412.6806

A rule also says how max-pools are undone: by their switches (the gradient's way, and Zeiler and Fergus'), by repeating
each value over its block, or by putting it in the centre of its window. Biases play no part on the way back.

All other layers are linear maps, and go back by their adjoint under each of the three: convolutions and dense layers,
average pools (a value is shared equally by the pixels of its window, whatever undoes max-pools), batch normalization
and Normalize (times gamma / sqrt(variance + epsilon), and 1 / std: their means are biases).

Every caller takes the name of a rule in `RULES`, a `Rule`, or a mapping {layer: either}, for layers of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .errors import choose

UNPOOLS = ("switches", "repeat", "center")


@dataclass(frozen=True)
class Rule:
    """What the layers do to the signal on its way back.

    Parameters
    ----------
    mask : bool
        At a ReLU keep dy where it was on.
    rectify : bool
        At a ReLU keep dy where it is positive itself.
    unpool : "switches", "repeat" or "center"
    relu, pool, linear : function (ops, layer, p, cache, dy) -> dx, optional
        What ReLUs do in place of `mask` and `rectify`, max-pools in place of `unpool`, linear layers in place of their
        adjoint: Conv2D, Dense, AvgPool2D, GlobalAvgPool2D, BatchNorm and Normalize. `cache.x` and `cache.y` are the
        layer's input and output, arrays of the backend, a max-pool's `cache.kept` its switches;
        `layer.backward(ops, p, cache, dy, RULES["gradient"])` is the usual way.
    """

    mask: bool = True
    rectify: bool = False
    unpool: str = "switches"
    relu: Callable | None = None
    pool: Callable | None = None
    linear: Callable | None = None


RULES = {
    "gradient": Rule(mask=True, rectify=False),
    "deconvnet": Rule(mask=False, rectify=True),
    "guided": Rule(mask=True, rectify=True),
}


def get_rule(rule, unpool=None):
    """Return a Rule, or the one of that name, with this way of unpooling (None: its own); or raise an InputError."""
    if not isinstance(rule, Rule):
        rule = RULES[choose(rule, RULES, "rule")]
    choose(rule.unpool if unpool is None else unpool, UNPOOLS, "unpool")
    return rule if unpool is None else replace(rule, unpool=unpool)


def by_layer(rule, names, unpool=None):
    """Return {layer: Rule} for the `names` of all layers: one rule for all, or those of a mapping {layer: rule}.

    What a mapping does not name goes back by the gradient. An unknown layer, rule or unpooling is an InputError.
    """
    if not isinstance(rule, Mapping):
        return dict.fromkeys(names, get_rule(rule, unpool))
    for name in rule:
        choose(name, names, "layer")
    return {name: get_rule(rule.get(name, "gradient"), unpool) for name in names}
