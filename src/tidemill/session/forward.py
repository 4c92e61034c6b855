"""The way forward from a thing: what was made from it, down to the versions, the deployments that they serve and their monitors."""

from collections.abc import Iterator

from tidemill import registry
from tidemill.core import Ref, UnknownName, show
from tidemill.ledger import Branch, Ledger, Node
from tidemill.loop import State


class Forward:
    """The tree below a thing over the branches that people see. What is reached twice is expanded once."""

    def __init__(self, ledger: Ledger, branches: list[Branch]) -> None:
        self.ledger, self.branches = ledger, branches
        self._seen: set[str] = set()

    def tree(self, ref: Ref, role: str = "") -> Node:
        """A thing with what was made from it below it."""
        meta = self._meta(ref)
        if str(ref) in self._seen:
            return Node(ref, role, {}, None, ())
        self._seen.add(str(ref))
        edges = {edge.child: edge for edge in self.ledger.children(ref)}
        below = [self.tree(self._whole(edge.child), f"as {edge.role}") for edge in edges.values()]
        return Node(ref, role, meta, None, (*below, *self._versions(ref)))

    def _versions(self, ref: Ref) -> Iterator[Node]:
        """The numbered versions of a model, with the deployments that each serves."""
        for branch in self.branches if ref.kind == "model" else ():
            for version in registry.versions(self.ledger, branch.id, ref.name):
                if version.digest == ref.digest:
                    passed = "without a verdict" if version.verdict is None else "passed" if version.verdict.passed else "refused"
                    yield Node(version.ref, f"version, {passed} by the gates", {}, None, tuple(self._deployments(branch, version.label)))

    def _deployments(self, branch: Branch, label: str) -> Iterator[Node]:
        """The deployment of a branch, where a version is or was its champion or is on its way, with its monitor."""
        state = State.of(branch.state)
        roles = {state.champion.label: f"champion since {show(state.champion.since)}"}
        if state.candidate:
            roles.setdefault(state.candidate.version.label, f"candidate, {state.candidate.phase}")
        roles |= {one.version.label: f"answers {one.weight:.4g} of its keys" for one in state.weighted}
        past = [f"{ref.name}/{ref.version}" for ref, _, _ in self.ledger.alias_history(branch.id, branch.name, "champion")]
        role = roles.get(label, "champion before" if label in past else "")
        if role:
            every = branch.parts["policy"]["monitor"]["every"]
            watched = Node(Ref("monitor", branch.name), f"watched every {every} by", {}, None, ())
            yield Node(Ref("deployment", branch.name, branch.id), role, {}, None, (watched,))

    def _meta(self, ref: Ref) -> dict[str, object]:
        try:
            return self.ledger.artifact(ref).meta
        except UnknownName:
            return {}

    def _whole(self, text: str) -> Ref:
        try:
            return self.ledger.artifact(Ref.parse(text)).ref
        except UnknownName:
            return Ref.parse(text)
