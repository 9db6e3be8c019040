"""Eight doubles as one value in compiled code.

Whether a compiler vectorises a loop depends on much that does not show. `Lanes` are vectors by
type: every arithmetic operator on them is one instruction on a processor with 512-bit registers,
two or four on others. Kernels load them from and store them to arrays; outside compiled code they
do not exist.

Arrays are addressed by the flat index of the first of eight doubles, in C order, unchecked.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from hullscreen.potentials.compiling import inlined
from hullscreen.potentials.structures import FloatArray

WIDTH = 8

_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
_MASK = ir.VectorType(ir.IntType(1), WIDTH)
# Sums may be reordered and fused; NaN and infinity keep their meaning.
_FLAGS = ("reassoc", "contract", "nsz", "arcp")


class LanesType(types.Type):  # type: ignore[misc]  # numba has no types
    """The type of eight doubles in compiled code."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]  # numba has no types
    def __init__(self, manager: Any, lanes_type: LanesType) -> None:
        super().__init__(manager, lanes_type, _VECTOR)


def _spread(builder: Any, value: Any) -> Any:
    """Eight times the same number."""
    single = builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    places = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), places)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, start: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), _VECTOR.as_pointer())


def _define(operators: tuple[Any, ...], instruction: str) -> None:
    """Let operators take lanes beside lanes, and lanes beside a number."""
    for symbol in operators:

        @infer_global(symbol)
        class Typing(ConcreteTemplate):  # type: ignore[misc]  # numba has no types
            cases = [  # noqa: RUF012  # the form numba asks for
                signature(LANES, LANES, LANES),
                signature(LANES, LANES, types.float64),
                signature(LANES, types.float64, LANES),
            ]

        for left, right in ((LANES, LANES), (LANES, types.float64), (types.float64, LANES)):

            @lower_builtin(symbol, left, right)
            def lower(_context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
                vectors = [
                    value if kind == LANES else _spread(builder, value)
                    for kind, value in zip(sig.args, arguments, strict=True)
                ]
                return getattr(builder, instruction)(*vectors, flags=_FLAGS)


_define((operator.add, operator.iadd), "fadd")
_define((operator.sub, operator.isub), "fsub")
_define((operator.mul, operator.imul), "fmul")
_define((operator.truediv, operator.itruediv), "fdiv")


@intrinsic
def spread(_typing: Any, _value: Any) -> Any:
    """Eight times the same number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0])

    return LANES(types.float64), generate


@intrinsic
def load(_typing: Any, array: Any, _start: Any) -> Any:
    """Eight doubles of an array from flat index ``start`` on."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, sig.args[0], *arguments), align=8)

    return LANES(array, types.intp), generate


@intrinsic
def store(_typing: Any, array: Any, _start: Any, _lanes: Any) -> Any:
    """Write eight doubles to an array from flat index ``start`` on."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        array_value, start, lanes = arguments
        builder.store(lanes, _pointer(context, builder, sig.args[0], array_value, start), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), generate


@intrinsic
def store_index(_typing: Any, array: Any, _start: Any, _index: Any) -> Any:
    """Write eight times the same 32-bit integer to an array from flat index ``start`` on."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        array_value, start, index = arguments
        integers = ir.VectorType(ir.IntType(32), WIDTH)
        undefined, zero = ir.Constant(integers, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        single = builder.insert_element(undefined, builder.trunc(index, ir.IntType(32)), zero)
        eight = builder.shuffle_vector(single, undefined, ir.Constant(integers, [0] * WIDTH))
        data = context.make_array(sig.args[0])(context, builder, array_value).data
        pointer = builder.bitcast(builder.gep(data, [start]), integers.as_pointer())
        builder.store(eight, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


@intrinsic
def total(_typing: Any, _lanes: Any) -> Any:
    """Sum of the eight."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), _VECTOR])
        name = f"llvm.vector.reduce.fadd.v{WIDTH}f64"
        reduce = cgutils.get_or_insert_function(builder.module, kind, name)
        zero = ir.Constant(ir.DoubleType(), 0.0)
        return builder.call(reduce, [zero, arguments[0]], fastmath=("reassoc",))

    return types.float64(LANES), generate


@intrinsic
def square_root(_typing: Any, _lanes: Any) -> Any:
    """Square root of each."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        name = f"llvm.sqrt.v{WIDTH}f64"
        root = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(root, arguments)

    return LANES(LANES), generate


@intrinsic
def lesser(_typing: Any, _left: Any, _right: Any) -> Any:
    """The lesser of each two."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *arguments), *arguments)

    return LANES(LANES, LANES), generate


@intrinsic
def below(_typing: Any, _lanes: Any, _limit: Any) -> Any:
    """Which of the eight are below a limit, as the bits of an integer."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes, limit = arguments
        mask = builder.fcmp_ordered("<", lanes, _spread(builder, limit))
        return builder.zext(builder.bitcast(mask, ir.IntType(WIDTH)), ir.IntType(64))

    return types.int64(LANES, types.float64), generate


@intrinsic
def first_bits(_typing: Any, _count: Any) -> Any:
    """The bits of the first ``count`` lanes, none if it is negative, all from eight on."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(64), WIDTH)
        undefined = ir.Constant(integers, ir.Undefined)
        single = builder.insert_element(undefined, arguments[0], ir.Constant(ir.IntType(32), 0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        counts = builder.shuffle_vector(single, undefined, places)
        mask = builder.icmp_signed("<", ir.Constant(integers, list(range(WIDTH))), counts)
        return builder.zext(builder.bitcast(mask, ir.IntType(WIDTH)), ir.IntType(64))

    return types.int64(types.int64), generate


def _mask(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.trunc(bits, ir.IntType(WIDTH)), _MASK)


@intrinsic
def keep(_typing: Any, _lanes: Any, _bits: Any) -> Any:
    """The lanes whose bits are set, zero in the others' place."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes, bits = arguments
        return builder.select(_mask(builder, bits), lanes, ir.Constant(_VECTOR, [0.0] * WIDTH))

    return LANES(LANES, types.int64), generate


@intrinsic
def pack(_typing: Any, _lanes: Any, _bits: Any) -> Any:
    """The lanes whose bits are set, moved to the front in order; the rest is arbitrary."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        lanes, bits = arguments
        kind = ir.FunctionType(_VECTOR, [_VECTOR, _MASK, _VECTOR])
        name = f"llvm.experimental.vector.compress.v{WIDTH}f64"
        compress = cgutils.get_or_insert_function(builder.module, kind, name)
        rest = ir.Constant(_VECTOR, ir.Undefined)
        return builder.call(compress, [lanes, _mask(builder, bits), rest])

    return LANES(LANES, types.int64), generate


@intrinsic
def n_bits(_typing: Any, _bits: Any) -> Any:
    """How many bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate


@inlined
def least_of(lanes: Any) -> float:
    """The least of the eight."""
    single = np.empty(WIDTH)
    store(single, 0, lanes)
    return float(single.min())


@inlined
def aligned(n: Any) -> FloatArray:
    """An empty array whose lanes do not straddle cache lines, shape (n,)."""
    room = np.empty(n + WIDTH)
    start = -room.ctypes.data % (8 * WIDTH) // 8
    return room[start : start + n]
