"""What is hooked onto a model: tests look at the very modules, before and after."""

from torch import nn

_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called")


def hooks_of(model: nn.Module) -> dict[str, int]:
    """The modules that have forward hooks, by name, with their number."""
    counts = {name: sum(len(getattr(module, kind)) for kind in _KINDS) for name, module in model.named_modules()}
    return {name: count for name, count in counts.items() if count}
