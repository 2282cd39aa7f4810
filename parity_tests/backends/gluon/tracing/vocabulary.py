"""Reads executed MXNet operators into the common vocabulary of operations."""

from __future__ import annotations

from parity_tests.backends.gluon.tracing import array_readers as arrays
from parity_tests.backends.gluon.tracing import attention, draws
from parity_tests.backends.gluon.tracing import layer_readers as layers
from parity_tests.backends.gluon.tracing.reading import Reader, fill, identity, plain, unknown
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.rules import last_steps
from parity_tests.pairing.vocabulary import Arguments, Emit


def read_gluon(args: Arguments, emit: Emit) -> list[Operand]:
    """The outputs of one executed operator, expressed in the common vocabulary."""
    kind = args.operation.kind
    reader = _READERS.get(_NUMPY.get(kind, kind))
    if reader is None or args.operation.opaque:
        return unknown(args, emit)
    outputs = reader(args, emit)
    return [outputs] if isinstance(outputs, Operand) else outputs


_ELEMENTWISE = {
    "add": ("elemwise_add", "broadcast_add", "_plus", "_grad_add"),
    "sub": ("elemwise_sub", "broadcast_sub", "_sub", "_minus"),
    "mul": ("elemwise_mul", "broadcast_mul", "_mul"),
    "div": ("elemwise_div", "broadcast_div", "_div"),
    "pow": ("broadcast_power", "_power"),
    "maximum": ("broadcast_maximum", "_maximum"),
    "minimum": ("broadcast_minimum", "_minimum"),
    "mod": ("broadcast_mod", "_mod"),
}
_SCALAR = {
    "add": "_plus_scalar", "sub": "_minus_scalar", "rsub": "_rminus_scalar", "mul": "_mul_scalar",
    "div": "_div_scalar", "rdiv": "_rdiv_scalar", "pow": "_power_scalar", "rpow": "_rpower_scalar",
    "maximum": "_maximum_scalar", "minimum": "_minimum_scalar", "mod": "_mod_scalar",
    "rmod": "_rmod_scalar",
}  # fmt: skip

# What operators of `mx.np` and `npx` are called beside those of `mx.nd` with the same attributes
_NUMPY = {
    "_npi_add": "_plus", "_npi_subtract": "_minus", "_npi_multiply": "_mul",
    "_npi_true_divide": "_div", "_npi_power": "_power", "_npi_add_scalar": "_plus_scalar",
    "_npi_subtract_scalar": "_minus_scalar", "_npi_rsubtract_scalar": "_rminus_scalar",
    "_npi_multiply_scalar": "_mul_scalar", "_npi_true_divide_scalar": "_div_scalar",
    "_npi_rtrue_divide_scalar": "_rdiv_scalar", "_npi_power_scalar": "_power_scalar",
    "_npi_rpower_scalar": "_rpower_scalar", "_npi_mod": "_mod", "_npi_mod_scalar": "_mod_scalar",
    "_npi_rmod_scalar": "_rmod_scalar", "_npx_topk": "topk", "_npi_absolute": "abs",
    "_npi_concatenate": "Concat",
    "_npi_swapaxes": "SwapAxis", "_npi_matmul": "batch_dot", "_np_dot": "dot", "_np_copy": "_copy",
    "_npi_zeros": "_zeros", "_npi_ones": "_ones", "_npi_full": "_full", "_npx_reshape": "Reshape",
    "_npi_broadcast_to": "broadcast_to", "_npi_argmax": "argmax", "_npi_argmin": "argmin",
    **{f"_npi_{name}": name for name in
       ("negative", "square", "sqrt", "reciprocal", "exp", "log", "tanh", "sin", "cos", "log1p",
        "expm1", "floor", "ceil", "trunc", "fix", "sign", "stack", "mean", "sort", "argsort")},
    **{f"_np_{name}": name for name in
       ("transpose", "squeeze", "sum", "prod", "max", "min")},
    **{f"_npx_{name}": name for name in ("relu", "sigmoid")},
}  # fmt: skip

_READERS: dict[str, Reader] = {
    **fill(("_copy", "identity", "BlockGrad", "make_loss", "detach"), identity),
    **fill(("Cast", "amp_cast"), arrays.cast),
    "_copyto": arrays.copy,
    "_setitem": arrays.assign,
    "Convolution": layers.conv,
    "Deconvolution": layers.conv_transpose,
    "FullyConnected": layers.dense,
    "BatchNorm": layers.batch_norm,
    "LayerNorm": layers.norm("layer_norm", 1e-5),
    "GroupNorm": layers.norm("group_norm", 1e-5),
    "InstanceNorm": layers.norm("instance_norm", 1e-3),
    "Pooling": layers.pool,
    "_contrib_AdaptiveAvgPooling2D": layers.adaptive,
    "Activation": layers.activation,
    "LeakyReLU": layers.leaky_relu,
    **{name: arrays.binary(kind) for kind, names in _ELEMENTWISE.items() for name in names},
    **{name: arrays.scalar(kind) for kind, name in _SCALAR.items()},
    "add_n": arrays.sum_of,
    "negative": lambda a, e: e("mul", [("input", a.first)], a.shape, scalar=-1.0),
    "square": lambda a, e: e("mul", [("input", a.first), ("other", a.first)], a.shape),
    "sqrt": lambda a, e: e("pow", [("input", a.first)], a.shape, scalar=0.5),
    "rsqrt": lambda a, e: e("pow", [("input", a.first)], a.shape, scalar=-0.5),
    "reciprocal": lambda a, e: e("pow", [("input", a.first)], a.shape, scalar=-1.0),
    **{name: plain(name) for name in
       ("relu", "sigmoid", "tanh", "exp", "log", "abs", "erf", "sin", "cos", "softsign", "log1p",
        "expm1", "floor", "ceil", "round", "trunc", "sign")},
    "fix": plain("trunc"),
    "hard_sigmoid": layers.hard_sigmoid,
    "clip": layers.clip,
    **fill(("Reshape", "_np_reshape", "Flatten", "expand_dims", "squeeze", "reshape_like"),
           plain("reshape")),
    **fill(("broadcast_axis", "broadcast_to", "broadcast_like"), plain("expand")),
    "tile": arrays.tile,
    "_np_roll": arrays.roll,
    "depth_to_space": arrays.depth_to_space,
    "space_to_depth": arrays.space_to_depth,
    "_contrib_div_sqrt_dim": arrays.div_sqrt_dim,
    "_np_cumsum": arrays.cumsum,
    "repeat": arrays.repeat,
    "transpose": arrays.transpose,
    "SwapAxis": arrays.swap_axes,
    "Concat": arrays.concat,
    "stack": arrays.stack,
    **fill(("SliceChannel", "_split_v2", "_npi_hsplit"), arrays.split),
    "_npi_hstack": arrays.join(1),
    "_npi_vstack": arrays.join(0),
    "_npi_dstack": arrays.join(2),
    "_np_moveaxis": arrays.move_axes,
    "_npi_einsum": arrays.einsum,
    "slice_axis": arrays.slice_axis,
    "slice": arrays.slice_ranges,
    **fill(("_slice", "_at"), arrays.rows),
    "SequenceLast": arrays.last,
    "slice_like": arrays.slice_like,
    **fill(("zeros_like", "_zeros"), arrays.constant(0.0)),
    **fill(("ones_like", "_ones"), arrays.constant(1.0)),
    "_full": arrays.constant(),
    **fill(("where", "_npi_where", "_npi_where_lscalar", "_npi_where_rscalar",
            "_npi_where_scalar2"), arrays.where),
    **fill(("sort", "argsort", "topk"), arrays.sort),
    "take": arrays.take,
    **fill(("pick", "batch_take"), arrays.pick),
    "gather_nd": arrays.gather_nd,
    "_getitem": arrays.getitem,
    "_contrib_boolean_mask": arrays.boolean_mask,
    **fill(("reverse", "_npi_flip"), arrays.flip),
    **fill(("Pad", "_npi_pad"), arrays.pad),
    "mean": arrays.reduce("mean"),
    "sum": arrays.reduce("sum"),
    "prod": arrays.reduce("prod"),
    "norm": arrays.reduce("norm"),
    "max": arrays.reduce("max"),
    "min": arrays.reduce("min"),
    "argmax": arrays.reduce("argmax"),
    "argmin": arrays.reduce("argmin"),
    "softmax": layers.softmax("softmax"),
    "softmin": layers.softmax("softmin"),
    "log_softmax": layers.softmax("log_softmax"),
    "_contrib_BilinearResize2D": layers.bilinear,
    "UpSampling": layers.upsample,
    "_image_normalize": layers.normalize_image,
    "_image_to_tensor": layers.image_to_tensor,
    "Dropout": layers.dropout,
    "LRN": layers.lrn,
    "Embedding": layers.embedding,
    **fill(("batch_dot", "dot", "_linalg_gemm2", "_linalg_gemm"), arrays.matmul),
    "L2Normalization": layers.normalize,
    last_steps.KIND: last_steps.emit_last_steps,
    **{name: layers.rnn(name.lower()) for name in
       ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")},
    **attention.READERS,
    **draws.READERS,
}  # fmt: skip
