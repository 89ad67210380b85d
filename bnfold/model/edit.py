"""The only hands that change a graph; everything else reads.

Each function keeps the graph valid and the interface as it was: names, order, types and shapes
of graph inputs and outputs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.expression import Expression
from bnfold.model.constants import Constant, folded_tensor
from bnfold.model.facts import Facts
from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.model.sources import freed_bytes
from bnfold.model.uses import (
    exchange_inputs,
    first_uses,
    is_used,
    is_used_once,
    is_wide,
    read_only,
    replace_uses,
    take_out,
)
from bnfold.model.values import (
    all_names,
    detach_subgraphs,
    graph_of,
    is_read,
    label,
    renamed,
    take_identity,
    values_in,
)

_LISTED_AS_INPUTS_UNTIL_IR: Final = 3
_ROLES: Final = {1: "weight", 2: "bias"}


class Editor:
    """Writes into one model, and gives new tensors names that nothing else has."""

    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self._model = model
        self._facts = facts
        self._names = set(all_names(model.graph))
        self._numbers: dict[str, int] = {}
        self._places: dict[ir.Graph, dict[ir.Value, list[int]]] = {}

    def unique(self, wanted: str) -> str:
        """Return ``wanted``, with a number behind it if that name is taken."""
        if wanted not in self._names:
            self._names.add(wanted)
            return wanted
        # all numbers below are taken: thousands may want the name of one shared constant
        numbers = itertools.count(self._numbers.get(wanted, 1))
        number = next(one for one in numbers if f"{wanted}_{one}" not in self._names)
        self._numbers[wanted] = number + 1
        name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def _free(self, name: str) -> None:
        """Let a name be given again."""
        self._names.discard(name)
        self._numbers.pop(name.rpartition("_")[0], None)

    def set_constant(
        self, node: ir.Node, index: int, expression: Expression, dtype: ir.DataType
    ) -> tuple[str, int]:
        """Make input ``index`` of ``node`` the constant ``expression``.

        A tensor that nobody else reads is replaced under its own name; any other is left alone
        and a new one is made for this node, and for all that need the same.

        Returns:
            The name of the tensor and the growth of the model in bytes, less than 0 where
            it shrinks: this was the last reader of the old one.
        """
        old = node.inputs[index] if index < len(node.inputs) else None
        if old is not None:
            known = self._facts.copies.find(old, expression, dtype, graph_of(node))
            if known is not None:
                return self._read_copy(node, index, old, known)
        if old is not None and self._owned_by(node, old, expression, dtype):
            old.const_value = folded_tensor(expression, dtype, old.const_value)
            old.const_value.name = old.name
            return old.name or "", 0
        like = None if old is None or old.producer() is not None else old.const_value
        tensor = folded_tensor(expression, dtype, like)
        freed = freed_bytes(old) if old is not None and is_used_once(old) else 0
        value = self._add_initializer(node, index, old, tensor)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)
        if old is None:
            return value.name or "", 0
        if self.drop_constant(old):
            self._inherit_name(value, old)
        else:
            self._facts.copies.add(old, value)
        return value.name or "", tensor.nbytes - freed

    def _read_copy(
        self, node: ir.Node, index: int, old: ir.Value, known: ir.Value
    ) -> tuple[str, int]:
        freed = freed_bytes(old) if is_used_once(old) else 0
        node.replace_input_with(index, known)
        self.drop_constant(old)
        return known.name or "", -freed

    def _inherit_name(self, value: ir.Value, old: ir.Value) -> None:
        """Give a new tensor the name of the one it replaced."""
        self._free(value.name or "")
        value.name = old.name

    def _owned_by(
        self, node: ir.Node, value: ir.Value, expression: Expression, dtype: ir.DataType
    ) -> bool:
        tensor = value.const_value
        return (
            value.is_initializer()
            and tensor is not None
            and is_used_once(value)
            and value.graph is node.graph
            and not value.is_graph_output()
            and not self._facts.is_overridable(value)
            and tensor.dtype == dtype
            and tuple(tensor.shape.numpy()) == expression.shape
        )

    def _add_initializer(
        self, node: ir.Node, index: int, old: ir.Value | None, tensor: ir.LazyTensor
    ) -> ir.Value:
        graph = graph_of(node)
        stem = (
            old.name if old is not None else None
        ) or f"{label(node)}.{_ROLES.get(index, index)}"
        tensor.name = self.unique(stem if old is None else f"{stem}.folded")
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=tensor.shape,
            const_value=tensor,
        )
        self._register(value, graph)
        return value

    def _register(self, value: ir.Value, graph: ir.Graph) -> None:
        graph.register_initializer(value)
        if self._model.ir_version <= _LISTED_AS_INPUTS_UNTIL_IR and graph is self._model.graph:
            graph.inputs.append(value)

    def store_result(
        self, node: ir.Node, expression: Expression, dtype: ir.DataType
    ) -> tuple[str, int]:
        """Put an initializer in the place of a node's result.

        Returns:
            Its name and the growth of the model in bytes, less than 0 where it shrinks.
        """
        old = node.outputs[0]
        tensor = folded_tensor(expression, dtype, None)
        growth = tensor.nbytes - freed_bytes(old)
        tensor.name, old.name = old.name, None
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(dtype),
            shape=tensor.shape,
            const_value=tensor,
        )
        self._register(value, graph_of(node))
        replace_uses(old, value)
        self.drop_nodes([node])
        return value.name or "", growth

    def own_constant(self, node: ir.Node, index: int, source: ir.Node) -> ir.Node:
        """Return the node that input ``index`` of ``node`` is computed from, and nothing else.

        Args:
            node: The reader.
            index: Which of its inputs.
            source: The node; from it on, each reads the one before as its input 0. It and
                those are copied where others read them too.
        """
        graph = graph_of(node)
        reader, place = node, index
        while True:
            value = reader.inputs[place]
            producer = None if value is None else value.producer()
            if value is None or producer is None:
                message = f"{source.name!r} is not in front of {node.name!r}"
                raise ValueError(message)
            own = producer
            if (
                not is_used_once(value)
                or value.is_graph_output()
                or producer.graph is not graph
            ):
                own = self._copy_in_front_of(reader, place, producer)
            self._facts.forget(own)
            if producer is source:
                return own
            reader, place = own, 0

    def _copy_in_front_of(self, reader: ir.Node, place: int, node: ir.Node) -> ir.Node:
        """Let an input of ``reader`` be computed by a copy of ``node``."""
        old = node.outputs[0]
        copy = ir.Node(
            node.domain,
            node.op_type,
            node.inputs,
            node.attributes.values(),
            overload=node.overload,
            name=self.unique(f"{label(node)}.folded"),
            num_outputs=1,
        )
        value = copy.outputs[0]
        value.name = self.unique(f"{old.name}.folded")
        value.type, value.shape = old.type, old.shape
        graph_of(reader).insert_before(reader, copy)
        reader.replace_input_with(place, value)
        self._facts.adopt(copy, like=node)
        return copy

    def drop_constant(self, value: ir.Value) -> bool:
        """Remove a constant that nothing reads any more, and what only it was computed from.

        Returns:
            Whether it is gone; one that is still read, or part of the interface, stays.
        """
        if is_used(value) or value.is_graph_output():
            return False
        producer = value.producer()
        if producer is not None:
            self.drop_nodes([producer])
            return producer.graph is None
        if not value.is_initializer() or value.graph is None:
            return value.const_value is not None and not value.is_graph_input()
        if value.is_graph_input():
            if self._model.ir_version > _LISTED_AS_INPUTS_UNTIL_IR:
                return False
            value.graph.inputs.remove(value)
        value.graph.initializers.pop(value.name or "")
        return True

    def drop_nodes(self, nodes: Iterable[ir.Node]) -> None:
        """Remove nodes whose outputs nothing reads, then what only they read."""
        pending = list(nodes)
        while pending:
            node = pending.pop()
            if node.graph is None or any(is_read(value) for value in node.outputs):
                continue
            inputs = [value for value in dict.fromkeys(node.inputs) if value is not None]
            captured = detach_subgraphs(node)
            take_out(node, graph_of(node))
            for value in (*inputs, *captured):
                producer = value.producer()
                if producer is not None:
                    pending.append(producer)
                else:
                    self.drop_constant(value)

    def bypass(self, nodes: Sequence[ir.Node], source: ir.Value, *, renamed: bool) -> None:
        """Remove a chain of nodes: readers of its last output read ``source`` instead.

        Args:
            nodes: The chain in graph order; its last output 0 is replaced.
            source: The value that takes its place.
            renamed: Whether ``source`` now is what the last output was, so takes its name.
        """
        last = nodes[-1].outputs[0]
        if last.is_graph_output():
            self._become_output(source, last)
        elif renamed and not source.is_graph_output() and source.producer() is not None:
            take_identity(source, last)
        replace_uses(last, source)
        inside = set(nodes)
        for node in nodes[:-1]:  # Shape and the like may read values inside of the chain
            for reader, index in node.outputs[0].uses():
                if reader not in inside:
                    reader.replace_input_with(index, source)
        self.drop_nodes(reversed(nodes))

    def unite_readers(self, sources: Mapping[ir.Value, ir.Value]) -> None:
        """Let nodes that read very many values read others instead, all at once.

        Args:
            sources: What is to be read, by what is read now; none is read through another.
        """
        found: dict[ir.Node, dict[int, ir.Value]] = {}
        for old, new in sources.items():
            for reader, index in first_uses(old, 2):
                if is_wide(reader) and new not in sources:
                    found.setdefault(reader, {})[index] = new
        for reader, values in found.items():
            exchange_inputs(reader, values)

    def drop_operands(self, node: ir.Node, gone: Sequence[int]) -> None:
        """Take operands out of a Sum, at least two of which stay."""
        olds = [node.inputs[index] for index in gone]
        lost = set(gone)
        stay = [value for index, value in enumerate(node.inputs) if index not in lost]
        read_only(node, stay)
        producers = (None if value is None else value.producer() for value in olds)
        self.drop_nodes([producer for producer in producers if producer is not None])

    def _become_output(self, source: ir.Value, output: ir.Value) -> None:
        graph = output.graph
        if graph is None:
            return
        take_identity(source, output)
        places = self._places_of(graph)
        found = places.pop(output, [])
        for place in found:
            graph.outputs[place] = source
        places.setdefault(source, []).extend(found)

    def _places_of(self, graph: ir.Graph) -> dict[ir.Value, list[int]]:
        """Return the places of a graph's outputs; only `_become_output` changes them."""
        known = self._places.get(graph)
        if known is None:
            known = self._places[graph] = {}
            for place, value in enumerate(graph.outputs):
                known.setdefault(value, []).append(place)
        return known

    def rewrite(self, node: ir.Node, op_type: str, data: ir.Value) -> None:
        """Turn a node into the operator ``op_type`` reading ``data``, its constants unset."""
        olds = [value for value in node.inputs if value is not None and value is not data]
        self._facts.forget(node)
        node.op_type = op_type
        node.attributes.clear()
        if len(node.outputs) > 1:
            node.resize_outputs(1)
        node.resize_inputs(1)
        node.replace_input_with(0, data)
        for value in olds:
            self.drop_constant(value)

    def rename(self, value: ir.Value) -> None:
        """Give a value that is not what it was a new name."""
        value.name = self.unique(f"{value.name}.folded")

    def read_from(self, node: ir.Node, data: ir.Value) -> None:
        """Make input 0 of a node ``data``."""
        node.replace_input_with(0, data)

    def exchange_inputs(self, node: ir.Node, index: int, other: ir.Node, place: int) -> None:
        """Let two nodes of one graph read each what the other read."""
        mine, theirs = node.inputs[index], other.inputs[place]
        node.replace_input_with(index, theirs)
        other.replace_input_with(place, mine)
        self._facts.forget(node)
        self._facts.forget(other)

    def set_attribute(self, node: ir.Node, attribute: ir.Attr) -> None:
        """Give an attribute of a node a new value."""
        self._facts.sources.pop(node, None)
        node.attributes[attribute.name] = attribute

    def set_operator(self, node: ir.Node, op_type: str) -> None:
        """Make a node another operator that reads the inputs it has."""
        node.op_type = op_type

    def split_instead(self, node: ir.Node, readers: Mapping[ir.Node, int]) -> None:
        """Make a SplitToSequence a Split; readers take the part of that number.

        ``keepdims`` goes: it counts only where no sizes are given (SplitToSequence-11).
        """
        sizes = node.inputs[1]
        count = 0 if sizes is None else self._facts.sizes_in(sizes)
        kept = [a for name, a in node.attributes.items() if name != "keepdims"]
        stem = node.outputs[0].name or "part"
        whole = ir.Node("", "Split", node.inputs, kept, num_outputs=count, name=node.name)
        whole.metadata_props.update(node.metadata_props)
        for place, value in enumerate(whole.outputs):
            value.name = self.unique(f"{stem}_{place}")
        graph_of(node).insert_before(node, whole)
        for reader, place in readers.items():
            old, new = reader.outputs[0], whole.outputs[place]
            if old.is_graph_output() or is_used(new):
                reader.op_type = "Identity"
                reader.resize_inputs(1)
                reader.replace_input_with(0, new)
            else:
                take_identity(new, old)
                old.replace_all_uses_with(new)
        self.drop_nodes([*readers, node])

    def store_shape(self, node: ir.Node) -> None:
        """Make the result of a Shape or Size, which is known, an initializer."""
        known = self._facts.constant(node.outputs[0])
        if isinstance(known, Constant):
            self.store_result(node, known.expression, known.dtype)

    def reshape_first(self, node: ir.Node, reshape: ir.Node, columns: int) -> None:
        """Move a Reshape from behind a product of matrices to its data, as [-1, columns]."""
        data, product, result = node.inputs[0], node.outputs[0], reshape.outputs[0]
        graph = graph_of(node)
        shape = ir.Tensor(np.array([-1, columns], np.int64), name=self.unique("matrix"))
        value = ir.Value(
            name=shape.name,
            type=ir.TensorType(shape.dtype),
            shape=shape.shape,
            const_value=shape,
        )
        self._register(value, graph)
        self._facts.exchange(node, reshape)
        if result.is_graph_output():
            self._become_output(product, result)
        else:
            take_identity(product, result)
        result.name = self.unique(f"{product.name}.rows")
        result.shape = None
        result.replace_all_uses_with(product)
        olds = [old for old in reshape.inputs[1:] if old is not None]
        reshape.op_type = "Reshape"
        reshape.attributes.clear()
        reshape.resize_inputs(2)
        reshape.replace_input_with(0, data)
        reshape.replace_input_with(1, value)
        node.replace_input_with(0, result)
        graph.remove(reshape)
        graph.insert_before(node, reshape)
        for old in olds:
            self.drop_constant(old)

    def drop_input(self, node: ir.Node, index: int) -> None:
        """Take an optional input away, and the constant if nothing else reads it."""
        old = node.inputs[index]
        if index == len(node.inputs) - 1:
            node.resize_inputs(index)
        else:
            node.replace_input_with(index, None)
        if old is not None:
            self.drop_constant(old)

    def keep_first_output(self, node: ir.Node, others: Sequence[ir.Value | None]) -> None:
        """Leave a node its first output; readers of the rest read ``others`` instead."""
        for value, source in zip(node.outputs[1:], others, strict=False):
            if source is None or not is_read(value):
                continue
            if value.is_graph_output():
                keep = ir.Node("", "Identity", [source], num_outputs=1)
                graph_of(node).insert_after(node, keep)
                source = keep.outputs[0]
                self._become_output(source, value)
            value.replace_all_uses_with(source)
        node.resize_outputs(1)

    def inline_branch(self, node: ir.Node, branch: ir.Graph) -> None:
        """Put the nodes of ``branch`` in the place of the If ``node``.

        A name that a graph around it, or any other, has as well is changed: it may be that of
        another value there, and what is nested in the outer graph must not hide it.
        """
        graph = graph_of(node)
        self._forget_names(graph for graph in subgraphs_of(node) if graph is not branch)
        for value in list(branch.initializers.values()):
            branch.initializers.pop(value.name or "")
            self._move_initializer(value, graph)
        inner = list(branch)
        results = list(branch.outputs)
        branch.outputs.clear()
        self._places.pop(branch, None)
        for moved in inner:
            branch.remove(moved)
        self._rename_clashes(inner)
        graph.insert_before(node, inner)
        for old, new in zip(node.outputs, results, strict=True):
            self._replace_result(node, old, new)
        self.drop_nodes([node])

    def _move_initializer(self, value: ir.Value, graph: ir.Graph) -> None:
        """Register a branch's initializer in the outer graph, copied if its name is taken."""
        name = value.name or ""
        if self._defined[name] <= 1:
            graph.register_initializer(value)
            return
        tensor = value.const_value
        if tensor is None:
            return
        fresh = self._other_name(name)
        copy = ir.Value(
            name=fresh,
            type=value.type,
            shape=value.shape,
            const_value=renamed(tensor, fresh),
        )
        graph.register_initializer(copy)
        value.replace_all_uses_with(copy, replace_graph_outputs=True)

    def _rename_clashes(self, nodes: Sequence[ir.Node]) -> None:
        for node in nodes:
            for value in node.outputs:
                if value.name and self._defined[value.name] > 1:
                    value.name = self._other_name(value.name)

    @cached_property
    def _defined(self) -> Counter[str]:
        """How many values of all graphs have a name, laid out once for all branches."""
        graphs = graphs_of(self._model.graph)
        return Counter(value.name or "" for graph in graphs for value in values_in(graph))

    def _forget_names(self, dropped: Iterable[ir.Graph]) -> None:
        for graph in (inner for one in dropped for inner in graphs_of(one)):
            self._defined.subtract(value.name or "" for value in values_in(graph))

    def _other_name(self, name: str) -> str:
        """Return a new name for one of the values that have this one."""
        fresh = self.unique(name)
        self._defined.update({name: -1, fresh: 1})
        return fresh

    def _replace_result(self, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        """Let what stands for ``old`` be read in its place."""
        local = new.producer() is not None and new.producer().graph is node.graph  # type: ignore[union-attr]  # producer is there
        if old.is_graph_output() and (not local or new.is_graph_output()):
            keep = ir.Node("", "Identity", [new], num_outputs=1)
            graph_of(node).insert_before(node, keep)
            new = keep.outputs[0]
        if old.is_graph_output():
            self._become_output(new, old)
        elif local and not new.is_graph_output():
            take_identity(new, old)
        replace_uses(old, new)
