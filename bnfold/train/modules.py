"""torch's BatchNorm1d, 2d and 3d with an optional residual and activation in the same pass."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from bnfold.errors import UsageError
from bnfold.train.functional import batch_norm, checked_activation

if TYPE_CHECKING:
    from torch import Tensor


def is_stand_in(value: object) -> bool:
    """torch.fx is reading a forward."""
    return isinstance(value, fx.Proxy)


def as_leaf(module: nn.Module, stand_in: Any, *told: Any) -> Tensor:
    """Record a call of the module: torch.fx looks into all modules that are not torch.nn's."""
    tracer = stand_in.tracer
    path = tracer.path_of_module(module)
    called: Tensor = tracer.create_proxy("call_module", path, (stand_in, *told), {})
    return called


class RefusesConversion:
    """An attribute that is not there, but notices who asks.

    torch's `SyncBatchNorm.convert_sync_batchnorm` replaces every BatchNorm by its own, which
    knows no activation and never is frozen: a model would go on training, without its ReLUs.
    Whether there is a `qconfig` is the one thing that it asks of a module that others do not.
    """

    def __get__(self, module: FusedBatchNorm | None, _owner: type) -> Any:
        """Raise AttributeError, or UsageError where torch's conversion loses something."""
        caller = sys._getframe(1)  # noqa: SLF001  # the only way to know
        converts = (
            caller.f_code.co_name == "convert_sync_batchnorm"
            and caller.f_globals.get("__name__") == nn.modules.batchnorm.__name__
        )
        if module is not None and converts and (module.activation or module.frozen):
            lost = f"the activation {module.activation!r}" if module.activation else "frozen"
            raise UsageError(
                "this BatchNorm cannot become torch's SyncBatchNorm",
                where=repr(module),
                why=f"torch's module has no place for {lost}: it would be dropped",
                remedy="call bnfold.train.convert_sync_batchnorm in place of torch's",
            )
        raise AttributeError("qconfig")


class FusedBatchNorm(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  # torch's base has no public name
    """activation(bn(x) + residual); a torch BatchNorm in every other respect.

    Args:
        *args: As of torch's BatchNorm: num_features, eps, momentum, affine, …
        activation: None, "relu", "relu6", "leaky_relu", "silu", "gelu", "gelu_tanh",
            "hardswish" or "mish".
        negative_slope: Of "leaky_relu".
        frozen: Normalise by the running statistics in training too, and leave them alone.
        **kwargs: As of torch's BatchNorm.
    """

    qconfig = RefusesConversion()
    takes_more = True  # a call may ask for a residual and an activation
    # Of the class too: a module that torch made, or pickled, has no attributes of ours.
    activation: str | None = None
    negative_slope: float = 0.01
    frozen: bool = False

    def __init__(
        self,
        *args: Any,
        activation: str | None = None,
        negative_slope: float = 0.01,
        frozen: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        eps: object = self.eps
        if isinstance(eps, str):
            raise TypeError(
                f"eps, the second argument, is the text {eps!r}: an activation is passed by "
                f"its name, activation={eps!r}"
            )
        self.activation = checked_activation(activation)
        self.negative_slope = negative_slope
        self.frozen = frozen

    def forward(
        self,
        input: Tensor,  # noqa: A002  # torch's name: some call it by that
        residual: Tensor | None = None,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> Tensor:
        """Return activation(bn(input) + residual).

        Args:
            input: Values [N, C, …].
            residual: Added before the activation.
            activation: In place of the module's own, for this call.
            negative_slope: Of that activation.
        """
        if is_stand_in(input):
            return as_leaf(self, input, residual, activation, negative_slope)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]  # torch's
        has_statistics = self.running_mean is not None or self.running_var is not None
        learning = self.training and not (self.frozen and has_statistics)
        tracks = self.track_running_stats or not learning
        if activation is None:
            activation, negative_slope = self.activation, self.negative_slope
        return batch_norm(
            input,
            self.running_mean if tracks else None,
            self.running_var if tracks else None,
            self.weight,
            self.bias,
            training=learning or not has_statistics,
            momentum=self.momentum,
            eps=self.eps,
            residual=residual,
            activation=activation,
            negative_slope=negative_slope,
            num_batches_tracked=self.num_batches_tracked if learning and tracks else None,
        )

    def extra_repr(self) -> str:
        """Return torch's description, and what differs from torch's."""
        parts = [super().extra_repr()]  # type: ignore[no-untyped-call]  # torch's
        if self.activation is not None:
            parts.append(f"activation={self.activation!r}")
        if self.activation == "leaky_relu":
            parts.append(f"negative_slope={self.negative_slope}")
        if self.frozen:
            parts.append("frozen=True")
        return ", ".join(parts)


class BatchNorm1d(FusedBatchNorm, nn.BatchNorm1d):
    """torch's BatchNorm1d, then + residual, then activation."""


class BatchNorm2d(FusedBatchNorm, nn.BatchNorm2d):
    """torch's BatchNorm2d, then + residual, then activation."""


class BatchNorm3d(FusedBatchNorm, nn.BatchNorm3d):
    """torch's BatchNorm3d, then + residual, then activation."""
