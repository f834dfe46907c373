"""Configuration files and their typing."""

import pytest
from omegaconf import OmegaConf

from datasets.errors import UserError
from harness import registry
from harness.config import compose, config_hash, plain, typed

CONF = registry.CONF


@pytest.mark.parametrize("dataset", registry.names("dataset"))
@pytest.mark.parametrize("predictor", registry.names("predictor"))
def test_every_predictor_composes_with_every_dataset(predictor, dataset):
    config = typed(compose([f"predictor={predictor}", f"dataset={dataset}"]))
    assert (config.predictor.name, config.dataset.name) == (predictor, dataset)


@pytest.mark.parametrize("name", [path.stem for path in (CONF / "experiment").glob("*.yaml")])
def test_every_experiment_composes(name):
    stored = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    config = plain(typed(compose([f"experiment={name}"])))
    assert f"{config['predictor']['name']}_{config['dataset']['name']}" in name
    for key, value in stored.get("recipe", {}).items():
        assert config["recipe"][key] == value


def named_recipes():
    """(predictor, dataset) of every recipe that is picked up by name."""
    pairs = [(predictor, dataset) for predictor in registry.names("predictor") for dataset in registry.names("dataset")]
    return [pair for pair in pairs if (CONF / "recipe" / f"{'_'.join(pair)}.yaml").exists()]


@pytest.mark.parametrize(("predictor", "dataset"), named_recipes())
def test_a_recipe_named_for_predictor_and_dataset_is_used(predictor, dataset):
    config = plain(typed(compose([f"predictor={predictor}", f"dataset={dataset}"])))
    stored = OmegaConf.load(CONF / "recipe" / f"{predictor}_{dataset}.yaml")
    for name in stored.pop("defaults", []):
        stored = OmegaConf.merge(OmegaConf.load(CONF / "recipe" / f"{name}.yaml"), stored)
    for key, value in stored.recipe.items():
        assert config["recipe"][key] == value


@pytest.mark.parametrize(("dataset", "epochs"), [("nasbench101", 6000), ("nasbench201", 4000)])
@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_narformer_trains_as_long_as_its_authors_on_each_benchmark(dataset, epochs, protocol):
    config = typed(compose(["predictor=narformer", f"dataset={dataset}", f"protocol={protocol}"]))
    assert config.recipe.epochs == epochs


def test_hash_ignores_places_but_not_values():
    base = config_hash(typed(compose([])))
    places = ["out=elsewhere", "logger=none", "dataset.root=x", "runs=y", "trainer.accelerator=cpu", "trainer.eval_nodes=9"]
    assert base == config_hash(typed(compose(places)))
    for change in ("seed=1", "recipe.lr=0.1", "predictor.dim=8", "train=10", "protocol=paper"):
        assert config_hash(typed(compose([change]))) != base


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3", "epochs: unknown key; did you mean recipe.epochs?"),
        ("+predictor.dmi=3", "predictor.dmi: unknown key; did you mean dim"),
        ("predictor.depth=deep", "predictor.depth"),
        ("trainer.devices=two", "trainer.devices"),
        ("trainer.checkpoint_minutes=-1", "trainer.checkpoint_minutes=-1.0: give 0 or more"),
        ("trainer.checkpoint_minutes=inf", "trainer.checkpoint_minutes=inf: give a finite number"),
        ("trainer.checkpoint_minutes=nan", "trainer.checkpoint_minutes=nan: give a finite number"),
        ("predictor.loss_ranking=-inf", "predictor.loss_ranking=-inf: give a finite number"),
        ("train=nan", "protocol.train=nan: give a finite number"),
        ("logger.kind=paper", "logger.kind=paper: unknown; choose one of wandb, csv, tensorboard, none"),
        ("logger.mode=on", "logger.mode=on: unknown; choose one of offline, online"),
        ("predictor.target=predictors.nowhere:Thing", "predictors.nowhere:Thing"),
    ],
)
def test_mistakes_name_the_key(override, message):
    with pytest.raises(UserError, match=message.replace("+", r"\+")):
        typed(compose([override]))


@pytest.mark.parametrize(
    ("protocol", "key", "value"),
    [("strict", "select", "test"), ("paper", "select", "test"), ("in_domain", "family", "vgg"), ("ood", "platform", "cpu")],
)
def test_what_a_protocol_does_not_read_is_refused(protocol, key, value):
    with pytest.raises(UserError, match=rf"protocol\.{key}={value}: protocol={protocol} does not read it; leave it out"):
        typed(compose([f"protocol={protocol}", f"+protocol.{key}={value}"]))


@pytest.mark.parametrize("protocol", registry.names("protocol"))
def test_a_configuration_reads_itself(protocol):
    content = plain(typed(compose([f"protocol={protocol}"])))
    assert plain(typed(OmegaConf.create(content))) == content


def test_a_configuration_of_an_older_narbench_is_refused_by_name():
    config = compose(["predictor=flops"])
    OmegaConf.set_struct(config, False)
    for key in ("seeds", "init"):
        config.pop(key)
    with pytest.raises(UserError, match="init, seeds: missing; an older narbench made this configuration, run it again"):
        typed(config)
