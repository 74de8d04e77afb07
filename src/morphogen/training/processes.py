"""Several processes that train one model: who they are, and the sum of their gradients."""

from __future__ import annotations

import atexit
from collections.abc import Sequence

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env, reduce
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.launched import place


def processes() -> PartialState:
    """This process among those that were launched with it.

    Raises:
        InputError: Several were launched, and each would train alone in the same run folder.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    launched = place().world
    if state.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    if state.num_processes == 1 < launched:
        raise InputError(f"WORLD_SIZE={launched}: several processes and no GPU; set ACCELERATE_USE_CPU=1 or launch one")
    return state


def _leave() -> None:
    """Leave the group before the interpreter ends: a thread of it that is still there would abort the process."""
    PartialState().destroy_process_group()


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes.

    One that the rows of no process have reached stays None: the optimiser passes it over, as it does in one process.
    """
    reached = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    for parameter, count in zip(parameters, reduce(reached, "sum").tolist(), strict=True):
        if count:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = reduce(grad, "sum")


def rows_of_all(tensor: Tensor) -> Tensor:
    """The rows of all processes, in the order of these; they may have different numbers of them."""
    if PartialState().num_processes == 1:
        return tensor
    return torch.cat(gather_object([tensor.cpu()])).to(tensor.device)
