"""The verbs that say which checkpoint is the best, and how sure that is: verdicts and gates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cmp.core.marks import NONE
from cmp.core.runs import Checkpoint, Run
from cmp.errors import BadInput, CmpError, NotFound, Refused
from cmp.settings import Settings
from cmp.workbench.heads import Heads
from cmp.workbench.voting import Voting

if TYPE_CHECKING:
    from cmp.core.agreeing import Agreement
    from cmp.core.curves import LossCurve
    from cmp.core.evidence import Evidence
    from cmp.core.picking import Gate, Verdict


class Judging(Voting):
    """What is known of which checkpoint is the best. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._heads = Heads(lambda run: self.curves(run).curves, self.verdict_marks, self.measured_last, self.verdict_told)

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def judge(self, run: Run, by: str | None = None, higher: bool | None = None) -> Verdict:
        """The verdict on a run's checkpoints by a rule ("measured", "held-out", "training", "votes"), a logged tag or a measured metric.

        Without `by` it goes by the held-out loss that was measured, or else by the logged one, or where there is neither by the training
        loss, which names no best then. `higher`: whether a higher value of the tag is better; None goes by its name. Raises NotFound where
        there is nothing to judge by, BadInput for a tag of which it is not known what is better, and Refused where it could only go by a
        part of what was measured.
        """
        from cmp.core.picking import MEASURED

        self.require_settled(run, by or MEASURED)
        return self._judged(run, by, higher)

    def _judged(self, run: Run, by: str | None = None, higher: bool | None = None) -> Verdict:
        from cmp.core.picking import VOTES, candidates, judge

        if by == VOTES:
            return self.tally(run).verdict
        if len(candidates(run)) < 2:
            return judge(run, None, by)
        return judge(run, self._evidence(run, by, higher), by)

    def verdicts(self, run: Run) -> tuple[Verdict, ...]:
        """What every rule says of which something is known, the one that counts for most first; empty where nothing is known."""
        from cmp.core.agreeing import base_in, every_evidence
        from cmp.core.picking import HELD_OUT, MEASURED, candidates, judge
        from cmp.core.votes import evidence_of

        if len(candidates(run)) < 2:
            return (judge(run, None),) if candidates(run) else ()
        logged, voted = every_evidence(run, self._curves_of(run)), evidence_of(run, self.votes(run))
        zeros = {one.metric: base_in(one) for one in self.measured(run, base=True)}
        known = [*((one, zeros.get(one.metric)) for one in self.measured(run)), *logged]
        firm, rest = ([one for one in known if (one[0].rule in (MEASURED, HELD_OUT)) is wanted] for wanted in (True, False))
        found = (*firm, *([(voted, None)] if voted else []), *rest)
        return tuple(replace(judge(run, one), base=base) for one, base in found)

    def agreement(self, run: Run) -> Agreement:
        """What the verdicts of all rules come to together."""
        from cmp.core.agreeing import agreement

        return agreement(run, self.verdicts(run))

    def verdict_told(self, run: Run) -> str:
        """The verdict on a run in one sentence, with its rule and its reason, and that rules disagree where they do; "" for none."""
        from cmp.core.agreeing import agreement, leading, told_by

        verdicts = self.verdicts(run)
        found, both = leading(verdicts), agreement(run, verdicts)
        if found is None or not found.scores:
            return ""
        return f"{told_by(found)} {both.told}" if both.agree is False else told_by(found)

    def verdict_line(self, checkpoints: Iterable[Checkpoint | None]) -> str:
        """The same of the runs that these are of, as it stands beside their pictures; made anew only where logs or votes have changed."""
        from cmp.disk.votes import Votes

        wanted = {(c.run_id, c.path) for c in checkpoints if c}  # another run may have had the same id
        runs = [run for run in self.library(fresh=False).runs if any((run.id, c.path) in wanted for c in run.checkpoints)] if wanted else []
        told = {run.id: line for run in runs if (line := self._heads.sentence(run, Votes(self.store).stamp(run.place)))}
        return " ".join(f"{name}: {line}" if len(told) > 1 else line for name, line in told.items())

    def _curves_of(self, run: Run) -> Sequence[LossCurve]:
        try:
            return self.curves(run).curves
        except CmpError:
            return ()

    def verdict_marks(self, run: Run) -> dict[str, dict[str, object]]:
        """By checkpoint what its head shows: its score, and whether it is in the window; nothing where no held-out loss decides."""
        from cmp.core.evidence import head_name, held_out_tags
        from cmp.core.picking import MEASURED

        try:
            verdict = self._judged(run)
            if verdict.rule != MEASURED and not held_out_tags(tuple(curve.tag for curve in self.curves(run).curves)):
                return {}
        except CmpError:
            return {}
        apart = len(verdict.window) < len(verdict.scores)
        told = {one.checkpoint_id: f"{head_name(one.metric)} {one.value:.3g}" for one in verdict.scores if verdict.decides}
        return {name: {"score": text} | ({"window": True} if apart and name in verdict.window else {}) for name, text in told.items()}

    def heads(self, wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What is known of these checkpoints beside their names, by id: loss, verdict, converted forms, flaw, star."""
        ids = set(wanted)
        asked = [(run, own) for run in self.library(fresh=False).runs if (own := [c for c in run.checkpoints if c.id in ids])]
        marks = self.marks(run for run, _ in asked)
        return {name: told | marks.get(name, NONE).told for run, own in asked for name, told in self._heads.of(run, own).items()}

    def gate(self, run: Run, text: str, by: str | None = None, higher: bool | None = None, margin: float = 0.0) -> Gate:
        """Whether A of "A vs B" is as good as B; raises Refused where nothing is known of one of them."""
        from cmp.core.measured import UPDATE, UPDATE_RELATIVE
        from cmp.core.picking import MEASURED, VOTES, gate, read_gate
        from cmp.core.votes import evidence_of

        if not 0 <= margin < float("inf"):
            raise BadInput(f"the margin is {margin}", "Give by how much A may be worse: 0 or more.")
        first, second = read_gate(text, run)
        self.require_settled(run, by or MEASURED)
        found = evidence_of(run, self.votes(run)) if by == VOTES else self._evidence(run, by, higher, base=True)
        if found and not found.decides:
            if found.rule in (UPDATE, UPDATE_RELATIVE):
                raise Refused(f"{found.metric} says how far weights have moved, not which of two is better", "Give --by something else.")
            told = f"{run.id} has no held-out loss at two of its checkpoints, and training loss does not say which of two is better"
            raise Refused(told, "--by training compares them by it all the same; --by TAG by something else that was logged.")
        compared = gate(found, first, second, margin) if found else None
        if compared is None:
            without = [name for name in dict.fromkeys((first, second)) if not found or name not in found.ids]
            told = f"nothing is known of {' and '.join(without)} by {found.metric if found else by or 'what was logged'}"
            raise Refused(told, "The base model has a value only where one was logged at step 0.")
        return compared

    def best_of(self, run: Run, checkpoints: Sequence[Checkpoint], count: int) -> tuple[list[Checkpoint], str]:
        """The `count` best of these by the held-out loss, and in words how sure that is; raises BadInput without one.

        Those that cannot be told apart are taken in the order of their values.
        """
        from cmp.core.picking import ranked, sure_text

        if count < 1:
            raise BadInput(f"the best {count} were asked for", "Use a number of checkpoints, such as 1.")
        verdict = self._decided(run)
        order = ranked(verdict)
        best = sorted((c for c in checkpoints if c.id in order), key=lambda c: order.index(c.id))[:count]
        if not best:
            raise BadInput(f"of the checkpoints chosen of {run.id} none has a held-out loss", "Name the checkpoints.")
        return [c for c in checkpoints if c in best], sure_text(run.id, verdict, [c.id for c in best])

    def kept_as_best(self, run: Run) -> Collection[str]:
        """The ids that stay where the best is to stay: the window, and those of which nothing is known. Raises Refused without one."""
        try:
            verdict = self._decided(run)
        except BadInput as fault:
            raise Refused(f"nothing says which checkpoints are the best: {fault.message}", "Keep others, such as last.") from fault
        return {*verdict.window, *verdict.unknown}

    def _decided(self, run: Run) -> Verdict:
        """A verdict that may name a best; raises BadInput where no held-out loss was measured or logged."""
        from cmp.core.picking import HELD_OUT, MEASURED

        told = f"{run.id} has no held-out loss in its logs at two of its checkpoints, and none was measured"
        hint = "Without one the best is not known: name the checkpoints, or `python -m cmp measure` them first."
        try:
            verdict = self.judge(run)
        except NotFound as fault:
            raise BadInput(told, hint) from fault
        if verdict.rule not in (MEASURED, HELD_OUT) and verdict.best is None:  # a single checkpoint is the best by whatever rule
            raise BadInput(told, hint)
        return verdict

    def _evidence(self, run: Run, by: str | None, higher: bool | None, base: bool = False) -> Evidence | None:
        """By a rule, tag or metric; what was logged under a metric's name goes before what was measured under it."""
        from cmp.core.picking import MEASURED, evidence_in_logs

        found = {name: one for one in self.measured(run, base=base) for name in (one.metric, one.rule)}
        if by in (None, MEASURED) and MEASURED in found:
            return found[MEASURED]
        if by == MEASURED:
            told = f"no held-out loss of {run.id!r} was measured at two of its checkpoints"
            raise NotFound(told, f"`python -m cmp measure {run.id} --held-out DIR` measures it.")
        curves = self.curves(run).curves
        if by not in found or any(curve.tag == by for curve in curves):
            return evidence_in_logs(run, curves, by, higher, base)
        if higher is found[by].lower_is_better:
            raise BadInput(f"of {by} {'less' if higher else 'more'} is better", f"Leave out {'--higher' if higher else '--lower'}.")
        return found[by]
