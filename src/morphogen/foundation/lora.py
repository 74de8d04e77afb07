"""Low-rank updates (Hu et al. 2022): W' = W + alpha / r B A, with A drawn and B zero: nothing changes at first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The projections of every attention layer, by the ends of their names."""
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
"""The two layers of every transformer block's feed-forward part."""


def add_lora(module: nn.Module, targets: Sequence[str], rank: int, alpha: float, gaussian: bool = False) -> None:
    """Put updates beside the layers whose names end in `targets`, in place; they alone have gradients then.

    Args:
        module: A network without updates.
        targets: Ends of layers' names.
        rank: r.
        alpha: Scale, over r.
        gaussian: Draw A from a normal distribution of deviation 1 / r, as diffusers does, and not uniformly.
    """
    from peft import LoraConfig, inject_adapter_in_model

    module.requires_grad_(False)
    scale: Any = alpha  # any number; the annotation wants a whole one
    drawn: Any = "gaussian" if gaussian else True
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=list(targets), init_lora_weights=drawn)
    inject_adapter_in_model(config, module)


def lora_layers(module: nn.Module) -> dict[str, Any]:
    """The layers with updates, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: child for name, child in module.named_modules() if isinstance(child, LoraLayer)}


def lora_modules(module: nn.Module) -> nn.ModuleDict:
    """The updates alone, A and B by the name of their layer (dots as hyphens); they share their parameters with it."""
    return nn.ModuleDict(
        {
            name.replace(".", "-"): nn.ModuleList([layer.lora_A["default"], layer.lora_B["default"]])
            for name, layer in lora_layers(module).items()
        }
    )


def merge_lora(modules: nn.Module) -> None:
    """Add the updates to the weights that they belong to, in place; plain layers are left."""
    from peft.tuners.lora import LoraLayer

    for module in list(modules.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                layer: Any = child
                layer.merge()
                setattr(module, name, layer.get_base_layer())
