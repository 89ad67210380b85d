"""How a session is to be opened: plain data that crosses to a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """How a session is to be opened.

    Attributes:
        model: Path of the ``.onnx`` file.
        level: How much the runtime may optimise: ``disabled``, ``basic`` or ``all``.
        provider: The runtime's own name of what computes.
        provider_options: Its options, as text.
        threads: Threads inside an operator; 0 leaves it to the runtime.
        disabled_optimizers: Names of the runtime's optimisers to leave out; it ignores names
            that it does not know.
        config: Entries of the session's configuration.
        optimized_path: Where to write the graph after optimisation; empty for nowhere.
        profile_prefix: Beginning of the path of a profile; empty for none.
    """

    model: str
    level: str = "all"
    provider: str = "CPUExecutionProvider"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    disabled_optimizers: tuple[str, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)
    optimized_path: str = ""
    profile_prefix: str = ""

    def to_data(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> SessionPlan:
        """Read back what ``to_data`` returned."""
        return SessionPlan(
            **{**data, "disabled_optimizers": tuple(data["disabled_optimizers"])}
        )
