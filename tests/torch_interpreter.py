"""A small interpreter of ONNX graphs over torch operations, so that autograd can differentiate them, and they can be computed in
double precision, which engines do not do for all operators.

Floating-point numbers become tensors of `PRECISION.element`; operators take their attributes as a dictionary and their inputs.
"""

from types import SimpleNamespace

import numpy as np
import torch
from onnx import helper, numpy_helper

F = torch.nn.functional
# In which precision floating-point numbers are computed.
PRECISION = SimpleNamespace(element=torch.float64)


def ints(value):
    return [int(v) for v in np.asarray(value.detach() if torch.is_tensor(value) else value).reshape(-1)]


def pads(a, x, kernel, strides, dilations):
    """Pads as torch wants them, last axis first."""
    rank = len(kernel)
    mode = a.get("auto_pad", b"NOTSET")
    given = a.get("pads", [0] * 2 * rank)
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        begin, end = [], []
        for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations):
            all_ = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            small, large = all_ // 2, all_ - all_ // 2
            begin.append(large if mode == b"SAME_LOWER" else small)
            end.append(small if mode == b"SAME_LOWER" else large)
        given = begin + end
    elif mode == b"VALID":
        given = [0] * 2 * rank
    return [p for axis in reversed(range(rank)) for p in (given[axis], given[axis + rank])]


def conv(a, x, w, b=None):
    rank = w.ndim - 2
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    x = F.pad(x, pads(a, x, w.shape[2:], strides, dilations))
    return getattr(F, f"conv{rank}d")(x, w, b, strides, 0, dilations, a.get("group", 1))


def conv_transpose(a, x, w, b=None):
    rank = w.ndim - 2
    p = a.get("pads", [0] * 2 * rank)
    y = getattr(F, f"conv_transpose{rank}d")(
        x, w, b, a.get("strides", [1] * rank), 0, a.get("output_padding", 0), a.get("group", 1), a.get("dilations", 1)
    )
    cut = [-v for axis in reversed(range(rank)) for v in (p[axis], p[axis + rank])]
    return F.pad(y, cut)


def max_pool(a, x):
    kernel = a["kernel_shape"]
    rank = len(kernel)
    strides = a.get("strides", [1] * rank)
    p = pads(a, x, kernel, strides, [1] * rank)
    if a.get("ceil_mode"):
        for axis in range(rank):
            place = 2 * (rank - 1 - axis) + 1
            whole = x.shape[2 + axis] + p[place - 1] + p[place]
            p[place] += -(whole - kernel[axis]) % strides[axis]
    padded = F.pad(x, p, value=float("-inf"))
    values, places = getattr(F, f"max_pool{rank}d")(padded, kernel, strides, return_indices=True)
    # Indices are those in the whole input without its padding.
    index = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * rank)
    steps = np.cumprod([1, *reversed(padded.shape[3:])])[::-1]
    for axis in range(rank):
        inside = places // int(steps[axis]) % padded.shape[2 + axis] - p[2 * (rank - 1 - axis)]
        index = index * x.shape[2 + axis] + inside
    return values, index


def average_pool(a, x):
    kernel = a["kernel_shape"]
    rank = len(kernel)
    strides = a.get("strides", [1] * rank)
    p = pads(a, x, kernel, strides, [1] * rank)
    pool = getattr(F, f"avg_pool{rank}d")
    y = pool(F.pad(x, p), kernel, strides, ceil_mode=bool(a.get("ceil_mode")))
    if not a.get("count_include_pad"):
        y = y / pool(F.pad(torch.ones_like(x), p), kernel, strides, ceil_mode=bool(a.get("ceil_mode")))
    return y


def resize(a, x, roi=None, scales=None, sizes=None):
    if sizes is None:
        sizes = [int(np.floor(n * s)) for n, s in zip(x.shape, np.asarray(scales.detach()).reshape(-1))]
    sizes = ints(sizes)
    mode = a.get("mode", b"nearest").decode()
    how = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "nearest":
        for axis in range(2, x.ndim):
            n, m = x.shape[axis], sizes[axis]
            at = torch.arange(m, dtype=torch.float64)
            at = at * n / m if how == "asymmetric" else (at + 0.5) * n / m - 0.5
            rounding = a.get("nearest_mode", b"round_prefer_floor").decode()
            at = {"floor": torch.floor, "ceil": torch.ceil}.get(rounding, lambda v: torch.ceil(v - 0.5))(at)
            x = x.index_select(axis, at.clamp(0, n - 1).long())
        return x
    kind = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}[x.ndim - 2], "cubic": "bicubic"}[mode]
    if how == "asymmetric":
        raise NotImplementedError("linear, asymmetric")
    return F.interpolate(x, sizes[2:], mode=kind, align_corners=how == "align_corners")


def slice_(a, x, starts=None, ends=None, axes=None, steps=None):
    starts = a["starts"] if starts is None else ints(starts)
    ends = a["ends"] if ends is None else ints(ends)
    axes = ints(axes) if axes is not None else a.get("axes", range(len(starts)))
    steps = ints(steps) if steps is not None else [1] * len(starts)
    for start, end, axis, by in zip(starts, ends, axes, steps):
        n = x.shape[axis]
        at = range(n)[slice(start, None if by < 0 and end < -n else end, by)]
        x = x.index_select(axis, torch.tensor(at, dtype=torch.int64))
    return x


def axes_of(a, x, axes):
    axes = a.get("axes") if axes is None else ints(axes)
    return list(axes) if axes else list(range(x.ndim))


def reduction(function):
    return lambda a, x, axes=None: function(x, axes_of(a, x, axes), bool(a.get("keepdims", 1)))


def broadcast_pad(a, x, p=None, value=None, axes=None):
    p = a["pads"] if p is None else ints(p)
    n = len(p) // 2
    axes = list(range(n)) if axes is None else [v % x.ndim for v in ints(axes)]
    full = [0] * 2 * x.ndim
    for place, axis in enumerate(axes):
        full[axis], full[axis + x.ndim] = p[place], p[place + n]
    if a.get("mode", b"constant") == b"constant":
        value = a.get("value", 0.0) if value is None else float(value)
        return F.pad(x, [v for axis in reversed(range(x.ndim)) for v in (full[axis], full[axis + x.ndim])], value=value)
    for axis in range(x.ndim):
        n = x.shape[axis]
        at = torch.arange(-full[axis], n + full[axis + x.ndim])
        if a["mode"] == b"reflect" and n > 1:
            at = at % (2 * (n - 1))
            at = torch.minimum(at, 2 * (n - 1) - at)
        x = x.index_select(axis, at.clamp(0, n - 1))
    return x


def batch_norm(a, x, scale, b, mean, var):
    wide = [1, -1] + [1] * (x.ndim - 2)
    return (x - mean.reshape(wide)) / torch.sqrt(var.reshape(wide) + a.get("epsilon", 1e-5)) * scale.reshape(
        wide
    ) + b.reshape(wide)


def lstm(a, x, w, r, b=None, lengths=None, h0=None, c0=None):
    steps, batch, _ = x.shape
    hidden, sequences, hs, cs = a["hidden_size"], [], [], []
    for d in range(w.shape[0]):
        h = x.new_zeros(batch, hidden) if h0 is None else h0[d]
        c = x.new_zeros(batch, hidden) if c0 is None else c0[d]
        back = d == 1 or a.get("direction", b"forward") == b"reverse"
        outs = [None] * steps
        for t in reversed(range(steps)) if back else range(steps):
            all_ = x[t] @ w[d].T + h @ r[d].T + (0 if b is None else b[d, : 4 * hidden] + b[d, 4 * hidden :])
            i, o, f, g = all_.split(hidden, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outs[t] = h
        sequences.append(torch.stack(outs))
        hs.append(h)
        cs.append(c)
    return torch.stack(sequences, 1), torch.stack(hs), torch.stack(cs)


def reshape(a, x, shape):
    shape = ints(shape)
    return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(shape)])


def split(a, x, sizes=None):
    axis = a.get("axis", 0)
    sizes = a.get("split") if sizes is None else ints(sizes)
    if sizes is None:
        sizes = [-(-x.shape[axis] // a["num_outputs"])] * a["num_outputs"]
        sizes[-1] = x.shape[axis] - sum(sizes[:-1])
    return x.split(sizes, axis)


def softmax(function):
    def run(a, x):
        if a["opset"] >= 13:
            return function(x, a.get("axis", -1))
        axis = a.get("axis", 1) % x.ndim
        return function(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape)

    return run


def unsqueeze(a, x, axes=None):
    axes = a["axes"] if axes is None else ints(axes)
    rank = x.ndim + len(axes)
    for axis in sorted(v % rank for v in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(a, x, axes=None):
    axes = a.get("axes") if axes is None else ints(axes)
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else [v % x.ndim for v in axes]
    return x.reshape([n for i, n in enumerate(x.shape) if i not in axes])


def gather(a, x, i):
    axis = a.get("axis", 0) % x.ndim
    flat = torch.where(i < 0, i + x.shape[axis], i).reshape(-1)
    return x.index_select(axis, flat).reshape([*x.shape[:axis], *i.shape, *x.shape[axis + 1 :]])


def scatter_nd(a, x, i, u):
    add = a.get("reduction") == b"add"
    return x.index_put(tuple(i.reshape(-1, i.shape[-1]).T), u.reshape(-1, *x.shape[i.shape[-1] :]), accumulate=add)


def scatter_elements(a, x, i, u):
    assert a.get("reduction", b"none") in (b"none", b"add")
    axis, i = a.get("axis", 0), torch.where(i < 0, i + x.shape[a.get("axis", 0)], i)
    return x.scatter_add(axis, i, u) if a.get("reduction") == b"add" else x.scatter(axis, i, u)


def gemm(a, x, w, c=None):
    y = a.get("alpha", 1.0) * ((x.T if a.get("transA") else x) @ (w.T if a.get("transB") else w))
    return y if c is None else y + a.get("beta", 1.0) * c


def div(a, x, y):
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def clip(a, x, low=None, high=None):
    low, high = a.get("min", low), a.get("max", high)
    return x.clamp(None if low is None else float(low), None if high is None else float(high))


def cast(a, x):
    kind = helper.tensor_dtype_to_np_dtype(a["to"])
    return x.to(PRECISION.element) if np.issubdtype(kind, np.floating) else x.to(getattr(torch, {"bool_": "bool"}.get(kind.name, kind.name)))


def one_hot(a, i, depth, values):
    classes = torch.arange(int(depth.item()))
    hot = (i % len(classes)).unsqueeze(-1) == classes
    return torch.where(hot, values[1], values[0]).movedim(-1, a.get("axis", -1))


def constant(a):
    for name in ("value", "value_float", "value_int", "value_ints", "value_floats"):
        if name in a:
            value = a[name]
            return tensor(numpy_helper.to_array(value) if name == "value" else np.asarray(value))
    raise NotImplementedError("Constant")


def filled(a, shape):
    value = numpy_helper.to_array(a["value"]).reshape(()) if "value" in a else np.float32(0)
    return tensor(np.full(ints(shape), value))


def global_max(a, x):
    return x.amax(list(range(2, x.ndim)), keepdim=True)


OPERATORS = {
    "Abs": lambda a, x: x.abs(),
    "Add": lambda a, x, y: x + y,
    "And": lambda a, x, y: x & y,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Ceil": lambda a, x: x.ceil(),
    "Clip": clip,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Constant": constant,
    "ConstantOfShape": filled,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Cos": lambda a, x: x.cos(),
    "Div": div,
    "Dropout": lambda a, x, *r: x,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Equal": lambda a, x, y: x == y,
    "Erf": lambda a, x: x.erf(),
    "Exp": lambda a, x: x.exp(),
    "Expand": lambda a, x, s: x.expand(torch.broadcast_shapes(x.shape, ints(s))),
    "Flatten": lambda a, x: x.reshape(int(np.prod(x.shape[: a.get("axis", 1)])), -1),
    "Floor": lambda a, x: x.floor(),
    "Gather": gather,
    "Gelu": lambda a, x: F.gelu(x),
    "Gemm": gemm,
    "GlobalAveragePool": lambda a, x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": global_max,
    "Greater": lambda a, x, y: x > y,
    "GreaterOrEqual": lambda a, x, y: x >= y,
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, x: F.hardswish(x),
    "Identity": lambda a, x: x,
    "LSTM": lstm,
    "LayerNormalization": lambda a, x, s, b=None: F.layer_norm(
        x, x.shape[a.get("axis", -1) % x.ndim :], s.expand(x.shape[a.get("axis", -1) % x.ndim :]), b, a.get("epsilon", 1e-5)
    ),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Less": lambda a, x, y: x < y,
    "LessOrEqual": lambda a, x, y: x <= y,
    "Log": lambda a, x: x.log(),
    "LogSoftmax": softmax(torch.log_softmax),
    "MatMul": lambda a, x, y: x @ y,
    "Max": lambda a, *x: x[0] if len(x) == 1 else torch.maximum(x[0], x[1]),
    "MaxPool": max_pool,
    "Min": lambda a, *x: x[0] if len(x) == 1 else torch.minimum(x[0], x[1]),
    "Mod": lambda a, x, y: x % y,
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "Not": lambda a, x: ~x,
    "OneHot": one_hot,
    "Or": lambda a, x, y: x | y,
    "PRelu": lambda a, x, s: torch.where(x < 0, s * x, x),
    "Pad": broadcast_pad,
    "Pow": lambda a, x, y: x ** y,
    "Range": lambda a, x, y, z: torch.arange(x.item(), y.item(), z.item(), dtype=x.dtype),
    "Reciprocal": lambda a, x: 1 / x,
    "ReduceL2": reduction(lambda x, axes, keep: (x * x).sum(axes, keep).sqrt()),
    "ReduceMax": reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": reduction(lambda x, axes, keep: (x * x).sum(axes, keep)),
    "Relu": lambda a, x: x.relu(),
    "Reshape": reshape,
    "Resize": resize,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end", None)]),
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Sign": lambda a, x: x.sign(),
    "Sin": lambda a, x: x.sin(),
    "Size": lambda a, x: torch.tensor(x.numel()),
    "Slice": slice_,
    "Softmax": softmax(torch.softmax),
    "Softplus": lambda a, x: F.softplus(x),
    "Split": split,
    "Sqrt": lambda a, x: x.sqrt(),
    "Squeeze": squeeze,
    "Sub": lambda a, x, y: x - y,
    "Sum": lambda a, *x: sum(x[1:], x[0]),
    "Tanh": lambda a, x: x.tanh(),
    "Tile": lambda a, x, r: x.repeat(ints(r)),
    "Transpose": lambda a, x: x.permute(a.get("perm", list(reversed(range(x.ndim))))),
    "Unsqueeze": unsqueeze,
    "Where": lambda a, c, x, y: torch.where(c, x, y),
}


def tensor(array):
    array = np.array(array)
    return torch.from_numpy(np.asarray(array)).to(PRECISION.element) if np.issubdtype(array.dtype, np.floating) else torch.from_numpy(array)


def operator_set(model):
    return max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def run(nodes, opset, values):
    """Runs nodes; gives their outputs one by one and adds them to the values."""
    for node in nodes:
        a = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        a["opset"] = opset
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise NotImplementedError(node.op_type)
        result = OPERATORS[node.op_type](a, *[values[name] for name in node.input])
        result = result if isinstance(result, tuple) else (result,)
        for name, value in zip(node.output, result):
            values[name] = value
            yield name, value
