"""The networks of the shipped recipes are members of published families: what they train can be exported."""

import pytest

from glassbox.cli.arguments import shipped
from glassbox.model.families import Sizes, family_of, from_config, to_config
from glassbox.recipe.loading import load_recipe

FAMILIES = {
    "recipes": "mixtral",
    "moxin": "mistral",
    "olmoe": "olmoe",
    "dots": "dots1",
    "eurux": "mixtral",
    "mimo": "mimo",
}
RECIPES = sorted(path for path in shipped().rglob("*.yaml") if path.parent.name in FAMILIES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_networks_have_a_family(path):
    stages = load_recipe(path).stages.values()
    networks = [stage.model for stage in stages if getattr(stage, "model", None) is not None]
    assert networks
    for network in networks:
        network = network.model_copy(update={"mup_base": None})
        assert family_of(network).model_type == FAMILIES[path.parent.name]
        again = from_config(to_config(Sizes(network, 32_000, 4096)), "here").network
        assert again.attention.model_dump(exclude={"head_dim"}) == network.attention.model_dump(exclude={"head_dim"})
        assert (again.head_dim, again.hidden, again.multi_token) == (
            network.head_dim,
            network.hidden,
            network.multi_token,
        )
