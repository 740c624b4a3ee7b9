"""A trained run in forms that other programs load: ONNX, torch.export, bare weights; each compared before it is kept.

features, numbers (batch, n) float32, raw · categories (batch, n) int64 ids · logits, probabilities (batch, num_classes)
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurona import __version__
from neurona.classifier import Classifier
from neurona.data.spec import DataSpec
from neurona.devices import distributed
from neurona.errors import ConfigError, RunError
from neurona.export import model_card
from neurona.runs.files import replacing
from neurona.runs.folder import RunFolder

log = logging.getLogger("neurona")

LIBRARIES = ("onnx", "onnxscript", "onnxruntime", "safetensors")
OPSET = 25  # which torch 2.11 to 2.14 write: not every operator can be converted to a later one
TOLERANCE = 1e-5
MOST_ROWS = 10_000  # of the test part, to compare with

Network = Callable[..., Sequence[Any]]


def check() -> None:
    """Raises ConfigError where a library is missing, or where several processes would write the same files."""
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        problem = f"needs {', '.join(missing)}: pip install -c constraints.txt -e '.[export]'"
        raise ConfigError("stage", "export", problem)
    if distributed.world_size() > 1:
        raise ConfigError("stage", "export", "works in one process: start it without torchrun or srun")


def write(classifier: Classifier, datamodule: Any, folder: RunFolder) -> dict[str, Any]:
    """Writes ``model.safetensors``, ``model.pt2``, ``model.onnx`` and ``model_card.md``; returns the stage's figures.

    A file is kept if, read back and run on rows of the test part, it gives what the network gives, see ``difference``.
    Raises RunError for those that are not, once the others are written.
    """
    started = time.perf_counter()
    inputs = as_inputs(_test_rows(datamodule), classifier.spec)
    forms = Forms(classifier, inputs)
    expected = _outputs(forms.network, inputs)
    figures: dict[str, Any] = {"status": "finished", "stage": "export", "rows": len(expected[0])}
    files: list[str] = []
    problems: dict[str, list[str]] = {}  # and the files that have them
    for file, form in (
        ("model.safetensors", forms.safetensors),
        ("model.pt2", forms.pt2),
        ("model.onnx", forms.onnx),
    ):
        try:
            contents, network = form()
            largest = difference(expected, _outputs(network, inputs))
        except Exception as error:
            problems.setdefault(f"cannot be made of this network ({_reason(error)})", []).append(file)
            continue
        if not largest <= TOLERANCE:
            problem = f"would differ from the network by {largest:.1e}, more than {TOLERANCE:.0e}"
            problems.setdefault(problem, []).append(file)
            continue
        with replacing(folder.path / file) as stream:
            stream.write(contents)
        files.append(file)
        log.info("%-18s %10s bytes, differs from the network by at most %.1e", file, f"{len(contents):,}", largest)
        figures |= {f"{file}/max_difference": largest, f"{file}/bytes": len(contents)}
    model_card.write(folder, classifier, figures)
    if problems:
        words = "; ".join(f"{', '.join(names)} {problem}" for problem, names in problems.items())
        raise RunError(f"{folder.path}: {words}; written: {', '.join(files) or 'none'}")
    return figures | {"seconds": round(time.perf_counter() - started, 3)}


def difference(expected: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """The largest between (logits, probabilities) and others: of probabilities as it is, of logits as a share of the
    largest expected one where that is above 1, as float32 holds so many digits, not decimals.
    """
    scales = (max(1.0, float(np.abs(expected[0]).max())), 1.0)
    return max(float(np.abs(a - b).max()) / scale for a, b, scale in zip(expected, outputs, scales, strict=True))


def as_inputs(features: Tensor, spec: DataSpec) -> dict[str, Tensor]:
    """What an exported network is given for raw features: ``features``; of a table, ``numbers`` and ``categories``,
    less the one of which it has no column.
    """
    if spec.schema is None:
        return {"features": features.float()}
    count = len(_columns(spec)["numbers"])
    parts = {"numbers": features[:, :count].float(), "categories": features[:, count:].long()}
    return {name: part for name, part in parts.items() if part.shape[1]}


def description(spec: DataSpec) -> dict[str, Any]:
    """What a program needs to know to ask the network and to understand it, as plain data."""
    about = {"neurona": __version__, "class_names": spec.class_names, "image_shape": spec.image_shape}
    if spec.schema is None:
        return about
    table = {name: spec.schema[name] for name in ("target", "columns", "rules")}
    return {**about, "inputs": _columns(spec), **table}


class Exported(nn.Module):
    """The classifier as it leaves: inputs → logits, probabilities."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(torch.cat([part.float() for part in inputs], dim=1)).float()  # exact for ids to 2**24
        return logits, logits.softmax(1)


class Forms:
    """The forms of a network: each method gives a file's contents, and what has been read back from them.

    inputs: rows, of which the exported ones take any number.
    """

    def __init__(self, classifier: Classifier, inputs: dict[str, Tensor]) -> None:
        self.network = Exported(classifier).eval()
        self.inputs = inputs
        self.metadata = {"neurona": json.dumps(description(classifier.spec), ensure_ascii=False)}

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        examples = tuple(part.new_zeros(2, *part.shape[1:]) for part in self.inputs.values())  # no one's data
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(self.network, examples, dynamic_shapes={"inputs": (batch,) * len(examples)})
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names folders of this machine
        return program

    def safetensors(self) -> tuple[bytes, Network]:
        from safetensors import torch as file

        weights = {name: tensor.clone() for name, tensor in self.network.classifier.state_dict().items()}
        contents = file.save(weights, self.metadata)
        parameters = {f"classifier.{name}": tensor for name, tensor in file.load(contents).items()}
        return contents, lambda *rows: torch.func.functional_call(self.network, parameters, rows)

    def pt2(self) -> tuple[bytes, Network]:
        file = io.BytesIO()
        torch.export.save(self.program, file, extra_files=self.metadata)
        file.seek(0)
        return file.getvalue(), torch.export.load(file).module()

    def onnx(self) -> tuple[bytes, Network]:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]

        for name in ("torch.onnx._internal.exporter._registration", "onnxscript"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters of it is raised below
        program = torch.onnx.export(
            self.program,
            input_names=list(self.inputs),
            output_names=["logits", "probabilities"],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        onnx.helper.set_model_props(model, self.metadata)
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        contents = model.SerializeToString()
        session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
        names = list(self.inputs)
        return contents, lambda *rows: session.run(None, dict(zip(names, (part.numpy() for part in rows), strict=True)))


def _test_rows(datamodule: Any) -> Tensor:
    """Of the test part; where there is none, of the training part."""
    datamodule.setup("test")
    if not getattr(datamodule, "has_test", True):
        return datamodule.features[datamodule.train_rows[:MOST_ROWS]].cpu()
    parts: list[Tensor] = []
    for features, _ in datamodule.test_dataloader():
        parts.append(features.cpu())
        if sum(map(len, parts)) >= MOST_ROWS:
            break
    return torch.cat(parts)[:MOST_ROWS]


def _outputs(network: Network, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    """Logits and probabilities of all rows: of the first alone, then of the others together."""
    rows = list(inputs.values())
    with torch.inference_mode():
        parts = [network(*(part[i] for part in rows)) for i in (slice(1), slice(1, None)) if len(rows[0][i])]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _columns(spec: DataSpec) -> dict[str, list[str]]:
    """Of a table: the column that each column of the two inputs comes from; a date gives several."""
    from neurona.tables.schema import Schema, layout

    assert spec.schema is not None
    count, _, names = layout(Schema.from_dict(spec.schema))
    return {"numbers": list(names[:count]), "categories": list(names[count:])}


def _reason(error: BaseException) -> str:
    """What was at the root of an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = re.sub(r"\x1b\[\d*m", "", str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {words[:300]}"
