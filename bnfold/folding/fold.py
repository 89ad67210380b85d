"""Fold a model: find chains, plan, carry out, until nothing more can be removed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from bnfold.folding.activations import write_activations
from bnfold.folding.branches import inline_constant_branches, name_apart
from bnfold.folding.cancelled import drop_cancelled_biases
from bnfold.folding.carry_out import carry_out, shorten_in_place, warnings_of
from bnfold.folding.compose import Remainder, shorten
from bnfold.folding.constants import store_mapped_constants
from bnfold.folding.dead_code import drop_all_dead_code, drop_dead_code
from bnfold.folding.functions import inline_functions
from bnfold.folding.idioms import find_idioms
from bnfold.folding.inference import WARNING, read_as_inference
from bnfold.folding.merging import merge_constants, merge_linear
from bnfold.folding.norm_tails import fold_norm_tails, norm_stays
from bnfold.folding.normalisations import describe_normalisations
from bnfold.folding.order_gelus import order_gelus
from bnfold.folding.plan import Plan, draw_plan
from bnfold.folding.selection import Selection
from bnfold.folding.sequences import split_sequences
from bnfold.folding.sites import Chain, chain_from, is_reported, source_of
from bnfold.folding.write_norms import write_norms
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.graphs import graphs_of, sort_graphs
from bnfold.model.origins import mark_origins
from bnfold.model.parameters import check_parameters
from bnfold.records import Code, FoldReport, Permissions, Refusal, Stay, Step
from bnfold.rules import RULES


@np.errstate(all="ignore")  # what overflows is found and named, not warned of
def fold_in_place(
    model: ir.Model,
    selection: Selection | None = None,
    permissions: Permissions | None = None,
) -> FoldReport:
    """Fold every map of ``model`` that can go, editing it; return what was done and why not.

    Raises:
        ModelError: If a BatchNormalization has parameters that make no sense.
    """
    chosen = selection or Selection()
    allowed = permissions or Permissions()
    before = count_operators(model)
    sort_graphs(model)
    mark_origins(model)
    report = _fold_calls(model, chosen, allowed)
    while report.steps and model.functions:
        # what has gone by now can make a function worth writing out that was not before
        more = _fold_calls(model, chosen, allowed)
        if not more.steps:
            break
        steps = (*report.steps, *more.steps)
        report = replace(more, steps=steps, normalisations=report.normalisations)
    return replace(report, counts_before=before)


def _fold_calls(model: ir.Model, chosen: Selection, allowed: Permissions) -> FoldReport:
    """Write out the functions that a fold gains from, and fold."""
    written = inline_functions(model, lambda trial: _fold_trial(trial, chosen, allowed))
    report = _fold_graphs(model, chosen, allowed)
    known = {(stay.rule, stay.site) for stay in report.stays}
    hidden = (stay for stay in written.stays if (stay.rule, stay.site) not in known)
    return replace(
        report,
        steps=(*written.steps, *report.steps),
        stays=(*report.stays, *hidden),
        warnings=(*written.warnings, *report.warnings),
    )


def _fold_trial(model: ir.Model, chosen: Selection, permissions: Permissions) -> FoldReport:
    """Fold a copy to see what goes: maps that nothing reads go either way, and say nothing."""
    facts = Facts(model, permissions, RULES)
    drop_all_dead_code(facts, Editor(model, facts), chosen)
    return _fold_graphs(model, chosen, permissions)


def _fold_graphs(model: ir.Model, chosen: Selection, permissions: Permissions) -> FoldReport:
    """Fold a model whose functions are left alone."""
    before = count_operators(model)
    steps: list[Step] = []
    if permissions.inference:
        steps.extend(read_as_inference(model, chosen))
    warnings: tuple[str, ...] = (WARNING,) if steps else ()
    facts = Facts(model, permissions, RULES)
    warnings += check_parameters(facts)
    normalisations = describe_normalisations(facts)
    moved: list[ir.Node] = []
    while True:
        done, folder = _one_round(facts, chosen, moved)
        steps.extend(done)
        warnings += tuple(folder.warnings)
        fresh = Facts(model, permissions, RULES) if done else facts
        if not fresh.knows_more_than(folder.facts):
            break
        facts = fresh  # constants that are stored now told sizes that nobody knew
    stays = folder.stays()
    if permissions.norms:
        stays.extend(norm_stays(folder.facts, folder.selection))
    name_apart(moved)
    after = count_operators(model)
    return FoldReport(tuple(steps), tuple(stays), before, after, warnings, normalisations)


def _one_round(
    facts: Facts, chosen: Selection, moved: list[ir.Node]
) -> tuple[list[Step], _Folder]:
    """Fold all that goes as far as sizes are known; return the steps, and who made them."""
    model, permissions, steps = facts.model, facts.permissions, list[Step]()
    while inlined := inline_constant_branches(facts, Editor(model, facts), chosen, moved):
        steps.extend(inlined)
        facts = Facts(model, permissions, RULES)
    if split := split_sequences(facts, Editor(model, facts), chosen):
        steps.extend(split)
        facts = Facts(model, permissions, RULES)
    editor = Editor(model, facts)
    steps.extend(drop_dead_code(facts, editor, chosen))
    steps.extend(store_mapped_constants(facts, editor, chosen))
    steps.extend(write_activations(facts, editor, chosen))
    steps.extend(write_norms(facts, editor, chosen))
    steps.extend(order_gelus(facts, editor, chosen))
    folder = _Folder(facts, editor, replace(chosen, idioms=find_idioms(facts)))
    steps.extend(folder.run())
    while done := fold_norms(facts, editor, folder.selection):
        steps.extend((*done, *folder.run()))
    return steps, folder


def fold_norms(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Move what a user allows to move of normalisations, drop biases that they cancel."""
    tails = fold_norm_tails(facts, editor, selection) if facts.permissions.norms else []
    return [*tails, *drop_cancelled_biases(facts, editor, selection)]


def count_operators(model: ir.Model) -> dict[str, int]:
    """Return how often each operator occurs, subgraphs included."""
    counts = Counter(node.op_type for graph in graphs_of(model.graph) for node in graph)
    return dict(sorted(counts.items()))


@dataclass(slots=True)
class _Folder:
    """One fold of one model: passes over its chains until a pass changes nothing."""

    facts: Facts
    editor: Editor
    selection: Selection
    warnings: list[str] = field(default_factory=list)
    _refused: dict[ir.Node, tuple[Chain, tuple[Refusal, ...]]] = field(default_factory=dict)
    _shorter: list[tuple[Chain, Remainder]] = field(default_factory=list)
    _postponed: list[Chain] = field(default_factory=list)
    _may_adjust: bool = False
    _grouped: set[ir.Value] = field(default_factory=set)

    def run(self) -> list[Step]:
        """Return the steps of every pass: moves enable merges, and merges enable moves.

        A chain is written in fewer nodes only when nothing else is left to do: composed, the
        part of it that could go with another chain is no node any more, and which of the two
        is met first would decide.
        """
        steps: list[Step] = []
        changed: list[Step] | None = None
        while changed is None or changed:
            steps.extend(changed or ())
            steps.extend(self._moves())
            changed = merge_linear(self.facts, self.editor, self.selection)
            if not changed:
                changed = [shorten_in_place(*pair, self.editor) for pair in self._shorter]
                self._shorter.clear()
        return steps

    def _moves(self) -> list[Step]:
        """Move maps until none moves; those that other readers must be adjusted for come last.

        Of the scales behind one value only one goes up, and the others take its inverse: had
        one gone that can be one constant with what is behind it, one more would stay, and
        which of them is met first would decide. So constants in a row are one before.
        """
        steps: list[Step] = []
        while True:
            self._may_adjust = False
            while done := self._one_pass():
                steps.extend(done)
            if not self._postponed:
                return steps
            done = merge_constants(self.facts, self.editor, self.selection)
            if not done:
                self._may_adjust = True
                done = self._one_pass()
            if not done:
                return steps
            steps.extend(done)

    def stays(self) -> list[Stay]:
        """Return what stayed, as the last pass saw it."""
        found: list[Stay] = []
        inside: set[ir.Node] = set()
        for node in self.facts.nodes():
            if node in self._refused:
                chain, refusals = self._refused[node]
                inside.update(chain.nodes)
                found.append(Stay(chain.rule, chain.names, refusals))
            elif node not in inside:
                why = source_of(node, self.facts, self.selection)
                if isinstance(why, Refusal) and is_reported(node, why):
                    found.append(Stay(node.op_type, (why.node,), (why,)))
        return found

    def _one_pass(self) -> list[Step]:
        self._refused.clear()
        self._shorter.clear()
        self._postponed.clear()
        self._grouped.clear()
        self.facts.apart.clear()
        steps: list[Step] = []
        visited: set[ir.Node] = set()
        for node in self.facts.nodes():
            if node in visited or node.graph is None:
                continue
            chain = chain_from(node, self.facts, self.selection)
            if isinstance(chain, Refusal):
                continue
            visited.update(chain.nodes)
            steps.extend(self._settle(chain))
        return steps

    def _settle(self, chain: Chain) -> list[Step]:
        """Fold one chain as far as it goes; remember why where it does not."""
        refusals: list[Refusal] = []
        for group in self._groups(chain):
            outcome = draw_plan(group, self.facts, self.selection)
            if isinstance(outcome, Plan):
                if outcome.cost.adjusted and not self._may_adjust:
                    self._postponed.append(chain)
                    return []
                done = self._carry_out(outcome)
                if not isinstance(done, Refusal):
                    return done
                refusals.append(done)
            else:
                refusals.extend(outcome)
        shorter = shorten(chain, chain.affine, self.facts)
        if isinstance(shorter, Remainder):
            self._shorter.append((chain, shorter))
        else:
            refusals.append(shorter)
        telling = [entry for entry in refusals if entry.code is not Code.NO_GAIN]
        # That nothing stands in front of a map says less than what stops it behind.
        telling.sort(key=lambda entry: entry.code is Code.GRAPH_INPUT)
        said: dict[tuple[str, ...], Refusal] = {}
        for one in telling or refusals:
            said.setdefault((one.code, one.node, one.why), one)
        self._refused[chain.nodes[0]] = (chain, tuple(said.values()))
        return []

    def _carry_out(self, plan: Plan) -> list[Step] | Refusal:
        remainder: Remainder | Refusal | None = None
        if not plan.left.is_identity:
            remainder = shorten(plan.chains[0], plan.left, self.facts)
        if isinstance(remainder, Refusal):
            return remainder
        self.warnings.extend(warnings_of(plan.edits))
        self.facts.apart.clear()
        return carry_out(plan, remainder, self.editor)

    def _groups(self, chain: Chain) -> list[tuple[Chain, ...]]:
        """Return the chain with its equals if only they read its input, then it alone."""
        alone: list[tuple[Chain, ...]] = [(chain,)]
        if chain.source in self._grouped or chain.source.is_graph_output():
            return alone
        self._grouped.add(chain.source)
        readers = self.facts.element_uses(chain.source)
        if len(readers) < 2:
            return alone
        equals: list[Chain] = []
        for reader, index in readers:
            other = chain_from(reader, self.facts, self.selection)
            if isinstance(other, Refusal) or other.index != index:
                return alone
            if reader.graph is not chain.nodes[0].graph or not other.affine.equals(
                chain.affine
            ):
                return alone
            equals.append(other)
        return [tuple(equals), *alone]
