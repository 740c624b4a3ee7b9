"""TabM is what the paper's formulas make of plain tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from neurona.errors import ConfigError
from neurona.models.embedding import Embedding
from neurona.models.tabm import MemberHead, MemberLinear, TabM, mean_of


def randomized(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    return network


def by_hand(network: TabM, features: torch.Tensor) -> torch.Tensor:
    """Logits of each member, one after the other."""
    first, second, head = network.layers.linear1, network.layers.linear2, network.layers.head
    logits = []
    for m in range(len(head.weight)):
        x = features
        for layer in (first, second):
            x = torch.relu(((x * layer.r[m]) @ layer.weight.T) * layer.s[m] + layer.bias[m])
        logits.append(x @ head.weight[m] + head.bias[m])
    return torch.stack(logits, dim=1)


def test_members_are_the_papers_formula() -> None:
    torch.manual_seed(0)
    network = randomized(TabM(5, 3, hidden=[7, 6], members=4, dropout=0.5)).eval()
    features = torch.randn(9, 5)
    expected = by_hand(network, features)
    torch.testing.assert_close(network.members(features), expected)
    probabilities = torch.softmax(expected, dim=2).mean(1)
    torch.testing.assert_close(torch.softmax(network(features), dim=1), probabilities)
    torch.testing.assert_close(network(features), probabilities.log(), rtol=1e-4, atol=1e-5)


def test_members_start_as_one_network_but_for_signs_and_heads() -> None:
    torch.manual_seed(0)
    network = TabM(400, 3, hidden=[50, 40], members=6)
    first, second = network.layers.linear1, network.layers.linear2
    assert first.r.abs().eq(1).all()
    assert abs(first.r.mean().item()) < 0.1
    for tensor in (second.r, second.s, first.s):
        assert tensor.eq(1).all()
    plain = nn.Linear(400, 50)
    for ours, theirs in ((first.weight, plain.weight), (first.bias[0], plain.bias)):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.1)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.3)
    assert torch.equal(first.bias, first.bias[:1].expand(6, -1))
    assert not torch.equal(network.layers.head.weight[0], network.layers.head.weight[1])


@pytest.mark.parametrize("activation", ["prelu", "swiglu", "selu"])
def test_any_activation(activation: str) -> None:
    network = TabM(5, 3, hidden=8, activation=activation, members=2)
    assert network(torch.randn(4, 5)).shape == (4, 3)
    assert network.layers.linear1.weight.shape[0] == (16 if activation == "swiglu" else 8)


@pytest.mark.parametrize("is_embedded", [False, True])
def test_the_loss_is_the_mean_of_the_members(make_classifier: Any, is_embedded: bool) -> None:
    torch.manual_seed(0)
    embedding = Embedding(5, 5, (), numbers="pbld", number_dimension=2)
    tabm = TabM(10 if is_embedded else 5, 3, hidden=[7, 6], members=4, dropout=0)
    network = nn.Sequential(embedding, tabm) if is_embedded else tabm
    weights = [1.0, 2.0, 0.5]
    classifier = make_classifier(network, 5, 3, label_smoothing=0.1, class_weights=weights)
    features, targets = torch.randn(9, 5), torch.randint(3, (9,))
    members = by_hand(tabm, embedding(features) if is_embedded else features)
    losses = [
        cross_entropy(logits, targets, torch.tensor(weights), label_smoothing=0.1) for logits in members.unbind(1)
    ]
    loss, logits = classifier.loss(features, targets)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(logits, mean_of(members))
    torch.testing.assert_close(classifier(features), logits)


@pytest.mark.parametrize("classes", [2, 9])
def test_heads_are_einsums_product_and_have_its_gradients(classes: int) -> None:
    torch.manual_seed(0)
    head = MemberHead(6, classes, 4).double()
    features = torch.randn(5, 4, 6, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(5, 4, classes, dtype=torch.float64)
    expected = torch.einsum("bmi,mio->bmo", features, head.weight) + head.bias
    torch.testing.assert_close(head(features), expected)
    inputs = [features, head.weight, head.bias]
    of_einsum = torch.autograd.grad((expected * factors).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((head(features) * factors).sum(), inputs), of_einsum)
    assert torch.autograd.gradgradcheck(head, features)


def test_heads_take_autocast_and_vmap() -> None:
    torch.manual_seed(0)
    head, features = MemberHead(6, 2, 4), torch.randn(3, 5, 4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features[0])
        logits.float().sum().backward()
    assert head.weight.grad is not None
    expected = features[0].sum(0)[:, :, None].expand(-1, -1, 2)
    torch.testing.assert_close(head.weight.grad, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(torch.vmap(head)(features), torch.stack([head(one) for one in features]))


def test_a_forward_of_ones_own_is_trained(make_classifier: Any) -> None:
    class Skipping(TabM):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.skip = nn.Linear(5, 3)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return super().forward(features) + self.skip(features)

    network = Skipping(5, 3, hidden=[8], members=2)
    loss, _ = make_classifier(network, 5, 3).loss(torch.randn(7, 5), torch.randint(3, (7,)))
    loss.backward()
    assert network.skip.weight.grad is not None


def test_one_member_without_dropout_is_a_perceptron() -> None:
    layer = MemberLinear(5, 4, 1, is_first=False)
    features = torch.randn(3, 5)
    expected = nn.functional.linear(features, layer.weight, layer.bias[0])
    torch.testing.assert_close(layer(features).squeeze(1), expected)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"hidden": []}, "model.hidden"),
        ({"hidden": [0]}, "model.hidden"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"members": 0}, "model.members"),
        ({"activation": "rellu"}, "model.activation"),
    ],
)
def test_mistakes(arguments: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        TabM(4, 2, **arguments)
    assert error.value.key == key
