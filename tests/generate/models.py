"""Small networks with random weights for the tests of decoding."""

import torch

from glassbox.model.transformer import Transformer
from glassbox.recipe.network import Attention, Experts, Network

V = 97
DENSE = Network(dim=32, layers=2, attention=Attention(heads=4, kv_heads=2), hidden=48)
WINDOWED = DENSE.model_copy(update={"attention": Attention(heads=4, kv_heads=2, window=6)})
MIXTURE = Network(
    dim=32, layers=2, attention=Attention(heads=4, kv_heads=2), experts=Experts(count=4, top_k=2, hidden=24)
)
NORMALISED = MIXTURE.model_copy(update={"experts": Experts(count=4, top_k=2, hidden=24, normalise=True)})
NETWORKS = {"dense": DENSE, "windowed": WINDOWED, "mixture": MIXTURE}


def build(network: Network, seed: int = 0) -> Transformer:
    model = Transformer(network, V)
    model.init_weights(seed)
    with torch.no_grad():  # larger weights than the usual first ones, so that the tokens vary
        for weight in model.parameters():
            weight.mul_(6 if weight.dim() > 1 else 1)
    return model


def prompts(count: int, seed: int = 0, longest: int = 20) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(V, (length,), generator=generator).tolist() for length in lengths]
