"""Floating point operations of a function, counted from its jaxpr.

A program's own estimate (`compiled.cost_analysis()`) counts the body of a loop once, however often it runs, and knows
nothing of the network that a library call replaced. Here a scan counts as often as it runs, and nothing is compiled or
computed.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

# Primitives that run the one program they hold exactly once.
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
)


def count_flops(function: Callable[..., Any], *args: Any) -> int:
    """Operations of all matrix products and convolutions; a multiplication and its addition are two.

    Everything else (element-wise arithmetic, norms, softmax, pooling, FFT, decompositions, random numbers) counts as
    nothing, as in the published figures of networks, which are half of this number ("GMAC", often called "GFLOPs"):
    halve it to compare. Taps of a convolution that fall into its padding count, taps into the holes of a dilated input
    do not, so that a convolution, its gradients and the same thing as a matrix product over patches agree. What no
    result depends on does not count; what rematerialization computes again does: for a model's share of a device's
    peak, count it without.

    Args:
        function: anything `jax.make_jaxpr` can trace: of a model, or a whole training step.
        args: arrays, or `jax.ShapeDtypeStruct`s in their place.

    Raises:
        ValueError: if the number cannot be known: products in a `while` loop, or in a kernel that jax does not see
            into. Of a `cond` the dearest branch is counted.
    """
    traced = jax.make_jaxpr(function)(*args).jaxpr
    # A gradient of our own computes all its parts, also those that nobody asks for; the compiler leaves them out.
    used, _ = dce_jaxpr(traced, [True] * len(traced.outvars))
    return _of_jaxpr(used)


def _of_jaxpr(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inner = [_of_jaxpr(jaxpr) for jaxpr in jaxprs_in_params(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    if name not in _CALLS and (any(inner) or "dot" in name):
        raise ValueError(f"{name}: how many operations it takes is not known before it runs, or not to jax")
    return sum(inner)


def _of_product(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    lhs_shape = _shape(equation.invars[0])
    return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(lhs_shape[axis] for axis in contracted)


def _of_convolution(equation: JaxprEqn) -> int:
    params = equation.params
    _, rhs_spec, out_spec = params["dimension_numbers"]
    kernel_shape, out_shape = _shape(equation.invars[1]), _shape(equation.outvars[0])
    # The kernel's own input channels are those of one group.
    products = out_shape[out_spec[0]] * out_shape[out_spec[1]] * kernel_shape[rhs_spec[1]]
    for axis, (out_axis, kernel_axis) in enumerate(zip(out_spec[2:], rhs_spec[2:], strict=True)):
        position = (
            np.arange(out_shape[out_axis])[:, None] * params["window_strides"][axis]
            + np.arange(kernel_shape[kernel_axis])[None] * params["rhs_dilation"][axis]
            - params["padding"][axis][0]
        )  # [positions of the output, taps], in the dilated input
        products *= int(np.count_nonzero(position % params["lhs_dilation"][axis] == 0))
    return 2 * products


def _shape(variable: Var | Literal) -> tuple[int, ...]:
    assert isinstance(variable.aval, ShapedArray)
    return variable.aval.shape
