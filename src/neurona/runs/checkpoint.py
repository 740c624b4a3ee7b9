"""What a checkpoint holds beside Lightning's own state, how it is read, and how a classifier is rebuilt from one."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from neurona.classifier import Classifier
from neurona.config import registry, signatures
from neurona.config.make import is_own, make, targets
from neurona.config.overrides import in_shell
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, HopelessRun, RunError
from neurona.models.embedding import Embedding
from neurona.runs.files import InParts, is_below, replacing
from neurona.runs.folder import PREVIOUS
from neurona.runs.plain import copied, first_unreadable, plain

log = logging.getLogger(__name__)

SHIPPED = {"_target_": "neurona.classifier.Classifier"}
CONTENTS = {"state_dict", "global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers", "neurona"}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all: a reader finds the old or the new. Raises RunError if it cannot, and
    ConfigError for contents that could not be read back.

    folder: the run's; one that has been removed is not made again. others: tells further places, in which callbacks are
    set to keep checkpoints. Nothing is removed elsewhere, whatever a callback's state in a checkpoint names.

    One saved with ``HOLD`` among its storage options stays in memory until it is written by ``write_held``, before the
    next one of another path, or replaced by the next of its own.
    """

    HOLD = "held"

    def __init__(self, folder: Path, others: Callable[[], Iterable[Path]] = tuple) -> None:
        super().__init__()
        self.folder, self.others = folder, others
        self._held: tuple[dict[str, Any], Path] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path, checkpoint = Path(path), plain(checkpoint)
        if storage_options and storage_options.get(self.HOLD):
            self._held = copied(checkpoint), path
            return
        if self._held is not None and self._held[1] != path:
            self.write_held()
        self._write(checkpoint, path)
        self._held = None

    def write_held(self) -> bool:
        """Writes what is held; whether anything was."""
        if self._held is None:
            return False
        self._write(*self._held)
        self._held = None
        return True

    def remove_checkpoint(self, path: Any) -> None:
        """Raises HopelessRun for a path outside of the places for checkpoints."""
        if not any(is_below(path, place) for place in (self.folder, *self.others())):
            problem = "the state of a callback in the checkpoint would remove it, but it is not in the run's folder"
            raise HopelessRun(f"{path}: {problem}; take that callback out: trainer.callbacks.<name>=null")
        Path(path).unlink(missing_ok=True)

    def _write(self, contents: dict[str, Any], path: Path) -> None:
        if self.folder.is_dir() or not is_below(path, self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(contents, InParts(file))  # type: ignore[arg-type]
            file.flush()
            _require_readable(Path(file.name), contents, path)


def _require_readable(written: Path, contents: dict[str, Any], path: Path) -> None:
    try:
        torch.load(written, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        what = "could not be read back, and is not written:"
        if place := first_unreadable(contents):
            raise ConfigError("checkpoint", path, f"{what} {place}") from error
        raise RunError(f"{path} {what} {type(error).__name__}: {' '.join(str(error).split())}") from error


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's contents on the CPU: plain containers and tensors, nothing in it is executed.

    Raises ConfigError if the file is missing, damaged, incomplete or not one of this project's.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        lacking = CONTENTS - contents.keys()
        described = contents["neurona"]
        if not lacking and isinstance(described["model"], dict) and described["preprocessing"]:
            spec(contents)
            epochs(contents)
            if len(described["rng"]):
                return contents
        problem = f"lacks {', '.join(sorted(lacking)) or 'its description'}"
    except FileNotFoundError:
        raise ConfigError("checkpoint", path, "does not exist; the run has not saved one yet") from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except Exception:  # whatever torch finds, its advice to unpickle the file regardless is not to be followed
        problem = "cannot be read as plain data and tensors"
    raise ConfigError("checkpoint", path, f"{problem}; it is damaged or not one of neurona's")


def epochs(contents: Mapping[str, Any]) -> int:
    """How many epochs were over."""
    return int(contents["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def read_last(last: Path) -> tuple[Path, dict[str, Any]]:
    """The last checkpoint, or the one before where it is missing or damaged: which, and its contents.

    Raises ConfigError as ``read`` if both are.
    """
    try:
        return last, read(last)
    except ConfigError as error:
        previous = last.with_name(PREVIOUS)
        with contextlib.suppress(ConfigError):
            contents = read(previous)
            log.warning("%s; going on from the one before, %s", error, previous)
            return previous, contents
        raise


def check_same(
    contents: dict[str, Any],
    folder: Path,
    model: dict[str, Any] | None,
    embedding: dict[str, Any] | None,
    fingerprint: str | None,
) -> None:
    """Raises ConfigError if a run that continues from this checkpoint has another network or other data.

    folder: the run's. model, embedding: what the network is made from. fingerprint: of the data, None where they have
    none.
    """
    described, anew = contents["neurona"], f"or start a new run with {in_shell('init_from', folder)}"
    for part, node in (("model", model or {}), ("embedding", embedding or {})):
        had = described.get(part) or {}
        for name in sorted(had.keys() | node.keys()):
            before, now = had.get(name), node.get(name)
            if before != now:
                problem = f"was {before} when the run began; bring that back, {anew}"
                raise ConfigError(f"{part}.{name}", now, problem)
    before = described.get("fingerprint")
    if before is not None and fingerprint is not None and before != fingerprint:
        problem = f"the run was trained on data with the fingerprint {before}; bring them back, {anew}"
        raise ConfigError("data.fingerprint", fingerprint, problem)


def spec(contents: dict[str, Any]) -> DataSpec:
    """What the checkpoint's network was made for."""
    stored = contents["neurona"]["spec"]
    kind = DataSpec if stored.get("schema") is None else registry.load(registry.TABLE_SPEC).TableSpec
    return kind(**stored)


def rebuild(
    contents: dict[str, Any],
    allow: Sequence[str] = (),
    node: Mapping[str, Any] | None = None,
    sizes: DataSpec | None = None,
) -> Classifier:
    """The classifier that a checkpoint describes, with its weights.

    allow: modules besides this project's, its libraries and those beside ``train.py`` whose classes it may name; a
    class inside a description must be in one of them, or beside ``train.py``. node, sizes: of the classifier, where not
    the checkpoint's own. Raises ConfigError if description and weights do not fit.
    """
    described, sizes = contents["neurona"], sizes or spec(contents)
    node = node or described.get("classifier_config") or SHIPPED
    settings = described.get("preprocessing_settings") or {"num_features": sizes.num_features}
    parts = {"model": described["model"], "embedding": described.get("embedding"), "preprocessing": settings}
    for key, inner in targets("", {**parts, "classifier": node}):
        target = inner["_target_"]
        if key not in ("model", "embedding", "classifier") and not is_own(key, str(target), allow):
            problem = f"is made by a checkpoint within its network; if you trust it, add allow=[{target}]"
            raise ConfigError(f"{key}._target_", target, problem)
    try:
        preprocessing = make("preprocessing", {"_target_": described["preprocessing"], **settings}, nn.Module, allow)
        network = make_network(described["model"], described.get("embedding"), preprocessing, sizes, allow)
        classifier = make(
            "classifier", node, Classifier, allow, preprocessing=preprocessing, network=network, spec=sizes
        )
        if is_overridden("configure_model", classifier):
            classifier.configure_model()
        restore(contents, classifier)
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        problem = f"description and weights do not fit together ({' '.join(str(error).split())}); it is damaged"
        raise ConfigError("checkpoint", described["model"].get("_target_", ""), problem) from error
    return classifier


def restore(contents: dict[str, Any], classifier: Classifier) -> None:
    """Gives a classifier the state that a checkpoint holds, all of it, as Lightning's ``load_from_checkpoint`` does:
    by ``on_load_checkpoint`` first. Raises RuntimeError naming what is missing, surplus or of another shape.
    """
    contents = dict(contents)
    classifier.on_load_checkpoint(contents)
    classifier.load_state_dict(contents["state_dict"], strict=classifier.strict_loading)


def make_network(
    model: dict[str, Any],
    embedding: dict[str, Any] | None,
    preprocessing: nn.Module,
    sizes: DataSpec,
    allow: Sequence[str] = (),
) -> nn.Module:
    """The network that a model's node describes, behind the embedding where that has something to embed. One whose
    constructor takes ``num_rows`` is given the number of training rows, where that is known and its node has none.
    """
    width, first = sizes.num_features, None
    if embedding is not None:
        first = make(
            "embedding",
            embedding,
            Embedding,
            allow,
            num_features=width,
            num_numbers=getattr(preprocessing, "num_numbers", width),
            cardinalities=getattr(preprocessing, "embedded", ()),
        )
        width = first.num_outputs
    rows = {"num_rows": sizes.num_rows} if sizes.num_rows is not None and "num_rows" not in model else {}
    with contextlib.suppress(LookupError):  # which ``make`` answers
        signature = signatures.from_source(str(model["_target_"]))
        rows = rows if signature and "num_rows" in signature.parameters else {}
    network = make("model", model, nn.Module, allow, num_features=width, num_classes=sizes.num_classes, **rows)
    if first is None or first.num_passed == sizes.num_features:
        return network
    return nn.Sequential(OrderedDict(embedding=first, network=network))


def transfer(contents: dict[str, Any], classifier: Classifier) -> list[str]:
    """Copies into a classifier the weights of the checkpoint's: of its network, and its own where the shapes fit.

    Returns the names left as they were: the network's first layer where the features differ in number, its head where
    the classes do, and what is the classifier's own. Raises ConfigError if anything else of the network differs in name
    or shape: it would be another one.
    """
    network, own, stored = classifier.network, classifier.state_dict(), contents["state_dict"]
    of_data = ("preprocessing.", "calibration")  # of the rows that the other run had
    stored = {name: tensor for name, tensor in stored.items() if not name.startswith(of_data)}
    own = {name: tensor for name, tensor in own.items() if not name.startswith(of_data)}
    fitting = {name for name in own.keys() & stored.keys() if _shape(own[name]) == _shape(stored[name])}
    differing = {name.removeprefix("network.") for name in _of_network(own.keys() | stored.keys()) - fitting}
    layers = [name for name, module in network.named_modules() if list(module.parameters(recurse=False))]
    ends = tuple(f"{layer}." for layer in (layers[0], layers[-1]))
    others = sorted(name for name in differing if not name.startswith(ends))
    if others or not _of_network(fitting):
        names = ", ".join(others or sorted(differing))
        problem = f"its network is another one ({names} differ); give the model= it was fitted with"
        raise ConfigError("init_from", "", problem)
    classifier.load_state_dict({name: stored[name] for name in fitting}, strict=False)
    return sorted(name.removeprefix("network.") for name in own.keys() - fitting)


def _shape(value: Any) -> Any:
    return getattr(value, "shape", None)  # what ``get_extra_state`` gives has none


def _of_network(names: Set[str]) -> set[str]:
    return {name for name in names if name.startswith("network.")}
