"""Loads and stores wider than an array's element, which Numba has no word for.

The kernels that use them are bound by the number of memory operations: one that moves eight bytes instead of four
halves their time. No alignment is asked for, and none is needed on x86-64 or 64-bit ARM.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_PAIR = ir.VectorType(ir.IntType(32), 2)


def _place(context: Any, builder: Any, signature: Any, args: Any, what: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), what.as_pointer())


def _pair_operation(operation: str) -> Any:
    def typed(typing_context, array, index, packed):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            place = _place(context, builder, signature, args, _PAIR)
            old = builder.load(place)
            old.align = 4
            new = getattr(builder, operation)(old, builder.bitcast(args[2], _PAIR))
            builder.store(new, place).align = 4
            return context.get_dummy_value()

        return types.void(array, index, packed), code

    return typed


#: `add_pair(array, index, packed)`: array[index] += low half of the int64 `packed`, array[index + 1] += high half,
#: for an int32 array; each half overflows on its own.
add_pair = intrinsic(_pair_operation("add"))
#: The same with -=.
sub_pair = intrinsic(_pair_operation("sub"))


@intrinsic
def store_four(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    """`store_four(array, index, value)`: the four bytes of the uint32 `value` to a uint8 array from `index` on."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = _place(context, builder, signature, args, ir.IntType(32))
        builder.store(args[2], place).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint32), code
