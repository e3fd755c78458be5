"""Every test of this folder runs twice: on a GPU, and as its twin on the CPU.

The twin runs the same code: the kernels through Triton's interpreter where Triton can be imported (else the plain
products), and recorded steps with a recorder that calls the step again.
"""

import importlib.util
import os
from importlib.metadata import version

import pytest
import torch

from personalize.config import EngineSettings
from personalize.engine.engine import Engine
from personalize.engine.graphs import DecodeGraphs
from personalize.model import base as base_module
from personalize.model.base import BaseModel
from personalize.model.digest import module_digest
from tests.engine.stage import Letters
from tests.engine.test_graphs import Recorder
from tests.model.tiny import tiny_module

HAS_TRITON = importlib.util.find_spec("triton") is not None and version("triton") >= "3.7"
"""The interpreter of earlier ones does not run under NumPy 2.4."""
if HAS_TRITON and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton looks at it when a kernel is defined

DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu), "cpu"]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch) -> torch.device:
    if request.param == "cpu":
        # On a machine with a GPU the kernels are compiled ones, and the CPU keeps its plain products.
        interpreted = HAS_TRITON and not torch.cuda.is_available()
        monkeypatch.setattr(base_module, "usable", lambda device, dtype: interpreted)
    return torch.device(request.param)


def base_on(device: torch.device, seed: int = 0) -> BaseModel:
    """Return a tiny model in fp32: greedy tokens then say whether two ways agree."""
    module = tiny_module("llama", seed)
    return BaseModel(module.to(device), base_digest=module_digest(module))


def engine_on(base: BaseModel, *, graphs: bool = False, **settings) -> Engine:
    """Return an engine; with ``graphs`` it replays its steps, on a CPU through the tests' recorder."""
    engine = Engine(base, EngineSettings(cuda_graphs=graphs, **settings), vocabulary=Letters(), rank=4)
    if graphs and base.device.type == "cpu":
        engine.runner.graphs = DecodeGraphs(base, engine.bank, engine.runner.cache, Recorder())
    return engine
