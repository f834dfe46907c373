"""Search spaces, the ledger of trials, pruning and what a sweep leaves behind."""

import _thread
import csv
import itertools
import re
import signal
import statistics
import threading
import time

import optuna
import psutil
import pytest
import wandb
import yaml
from omegaconf import OmegaConf
from optuna.trial import TrialState

from datasets.errors import UserError
from harness import registry
from harness.config import NOT_HASHED, compose, typed
from harness.sweep import driver
from harness.sweep.ledger import ATTEMPTS, Ledger
from harness.sweep.report import experiment_file
from harness.sweep.space import Dimension, Space, as_overrides, known_spaces, read_space
from harness.sweep.storage import open_storage
from harness.sweep.trial import run_trial, trial_config
from harness.sweep.worker import FAILURES, Sweep, shares

SMALL = ["train=60", "val=40", "protocol.test=60", "logger=none"]
NEIGHBOURS = {"predictor.k": Dimension("int", 1, 20), "predictor.walk": Dimension("int", 0, 2)}


def knn(**changes):
    settings = {"name": "knn", "overrides": ["predictor=knn", *SMALL], "space": NEIGHBOURS, "trials": 3, "seeds": [0]}
    return Space(**settings | {"objectives": ["kendall_tau"]} | changes)


def gin(*overrides, **changes):
    space = {"recipe.lr": Dimension("float", 1e-4, 1e-2, log=True)}
    return knn(overrides=["predictor=gin", "predictor.hidden=8", *SMALL, *overrides], space=space, **changes)


def write(folder, **changes):
    content = {
        "overrides": ["predictor=gin", "dataset=digits201"],
        "space": {"recipe.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
        "objectives": ["kendall_tau"],
        "trials": 3,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return str(path)


def test_every_predictor_has_spaces_that_its_configuration_accepts():
    wanted = set()
    for name in registry.names("predictor"):
        networks = registry.load(registry.target("predictor", name)).whole_networks
        wanted |= {f"{name}_accuracy"} | ({f"{name}_latency"} if networks else set())
    assert wanted <= set(known_spaces())
    for name in known_spaces():
        space = read_space(name)
        predictor, _, task = name.partition("_")
        assert space.overrides[0] == f"predictor={predictor}"
        assert space.configured, f"{name} does not contain the recipe"
        assert space.objectives[0] == ("mape_percent" if task == "latency" else "kendall_tau")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampelr": "tpe"}, "sampelr"),
        ({"sampler": "cmaes"}, "choose one of tpe, gp, nsga2"),
        ({"trials": 0}, "give 1 or more"),
        ({"space": {}}, "space is empty"),
        ({"seeds": [1, 1]}, "occurs twice"),
        ({"objectives": ["tau"]}, "choose one of kendall_tau"),
        ({"objectives": ["ms_per_architecture"]}, "one validation metric"),
        ({"objectives": ["kendall_tau", "ms_per_architecture"], "pruner": "median"}, "pruner: none"),
        ({"overrides": ["predictor=gin", "seed=3"]}, "use the seeds of the space"),
        ({"overrides": ["predictor=gin", "seeds=[0,1]"]}, "use the seeds of the space"),
        ({"overrides": ["predictor=gim"]}, "did you mean gin"),
        ({"space": {"recipe.lr": {"type": "float", "low": 2, "high": 1}}}, "low=2 is above high=1"),
        ({"space": {"recipe.lr": {"type": "float", "low": 0, "high": 1, "log": True}}}, "space.recipe.lr"),
        ({"space": {"recipe.lr": {"type": "real", "low": 0, "high": 1}}}, "choose one of float, int, categorical"),
        ({"space": {"recipe.lr": {"type": "float", "low": 0, "hihg": 1}}}, "hihg"),
        ({"space": {"recipe.lr": {"type": "categorical", "choices": [1], "low": 0}}}, "nothing else"),
        ({"space": {"recipe.lr": {"type": "categorical", "choices": [[1, 2]]}}}, "write a list as text"),
        ({"space": {"recipe.epochs": {"type": "int", "low": 1.5, "high": 3}}}, "no whole number"),
        ({"space": {"recipe.epocs": {"type": "int", "low": 1, "high": 2}}}, "did you mean epochs"),
        ({"space": {"recipe.epochs": {"type": "float", "low": 0.5, "high": 1.5}}}, "recipe.epochs"),
        ({"space": {"recipe.optimizer": {"type": "categorical", "choices": ["adam", "sgd"]}}}, "adamw, adam"),
        ({"space": {"seed": {"type": "int", "low": 0, "high": 3}}}, "set by the sweep"),
    ],
)
def test_mistakes_in_a_space_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        read_space(write(tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert "mine.yaml" in str(error.value)


def test_an_unknown_space_and_a_file_that_is_not_yaml(tmp_path):
    with pytest.raises(UserError, match="did you mean gin_accuracy"):
        read_space("gin_acuracy")
    (tmp_path / "mine.yaml").write_text("space: [")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        read_space(str(tmp_path / "mine.yaml"))


def test_the_first_trial_is_the_configuration_as_it_is(tmp_path):
    space = knn(trials=4)
    for ledger in (Ledger.open(space, None, tmp_path), Ledger.open(space, None, tmp_path)):
        trials = [ledger.claim() for _ in range(2)]
    config = compose(space.overrides)
    first = {"predictor.k": config.predictor.k, "predictor.walk": config.predictor.walk}
    assert [trial.number for trial in trials] == [2, 3], "opened again, the study continues"
    assert [trial.params == first for trial in ledger.study.trials] == [True, False, False, False]


@pytest.mark.parametrize(
    ("dimension", "drawn"),
    [
        (Dimension("categorical", choices=["[3,1,1,1]", "[6,1,1,1]"]), "[6,1,1,1]"),
        (Dimension("categorical", choices=["[3,1,1,1]"]), None),
    ],
)
def test_a_configured_list_is_drawn_as_text(dimension, drawn):
    space = knn(overrides=["predictor=narformer", "predictor.depths=[6,1,1,1]"], space={"predictor.depths": dimension})
    assert space.configured == (drawn and {"predictor.depths": drawn})


@pytest.mark.parametrize(
    ("lr", "dimension", "inside"),
    [
        (0.01, Dimension("float", 1e-4, 1e-2, log=True), True),
        (0.02, Dimension("float", 1e-4, 1e-2, log=True), False),
        (0.3, Dimension("float", 0.0, 1.0, step=0.1), True),
        (0.25, Dimension("float", 0.0, 1.0, step=0.1), False),
    ],
)
def test_a_configured_number_must_be_one_that_is_drawn(lr, dimension, inside):
    space = gin(f"recipe.lr={lr}", trials=1)
    space.space = {"recipe.lr": dimension}
    assert (space.configured == {"recipe.lr": lr}) is inside


def test_no_more_trials_are_claimed_than_asked_for(tmp_path):
    ledger = Ledger.open(knn(), None, tmp_path)
    trials = [ledger.claim() for _ in range(4)]
    assert [trial and trial.number for trial in trials] == [0, 1, 2, None]
    ledger.finish(trials[0], TrialState.FAIL)
    assert ledger.claim().number == 3, "a failed trial does not count"


def test_an_abandoned_trial_is_tried_again_a_few_times(tmp_path):
    ledger = Ledger.open(knn(trials=1), None, tmp_path)
    trial = ledger.claim()
    other = Ledger.open(knn(trials=1), None, tmp_path)
    for _ in range(ATTEMPTS - 1):
        assert other.claim() is None, "it is running"
        ledger.locks.release(trial.number)
        ledger, other, previous, trial = other, ledger, trial, other.claim()
        assert trial.params == previous.params
        assert trial.user_attrs["retry_of"] == previous.number
    ledger.locks.release(trial.number)
    fresh = other.claim()
    assert "retry_of" not in fresh.user_attrs
    other.finish(fresh, TrialState.COMPLETE, [0.5])
    ledger.study.tell(trial, 0.9, skip_if_finished=True)
    assert [each.value for each in ledger.finished()] == [0.5], "too late: the trial was given to another worker"


def test_a_retry_is_queued_once_though_the_worker_that_queues_it_dies(tmp_path, monkeypatch):
    ledger = Ledger.open(knn(trials=1), None, tmp_path)
    trial = ledger.claim()
    ledger.locks.release(trial.number)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.study, "tell", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.claim()
    other = Ledger.open(knn(trials=1), None, tmp_path)
    ledger.locks.release(trial.number)
    again = other.claim()
    assert again.params == trial.params
    assert len(other.study.trials) == 2


def test_half_a_line_at_the_end_of_the_journal_is_cut_off(tmp_path):
    ledger = Ledger.open(knn(), None, tmp_path)
    ledger.finish(ledger.claim(), TrialState.COMPLETE, [0.5])
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code":5,"wor')
    ledger.finish(ledger.claim(), TrialState.COMPLETE, [0.6])
    assert [trial.value for trial in Ledger.open(knn(), None, tmp_path).finished()] == [0.5, 0.6]


def test_a_continued_study_draws_what_an_uninterrupted_one_draws(tmp_path):
    def draw(folder, reopen):
        drawn, ledger = [], Ledger.open(knn(trials=14), None, folder)
        for number in range(14):
            if number in reopen:
                ledger = Ledger.open(knn(trials=14), None, folder)
            trial = ledger.claim()
            drawn.append(trial.params)
            ledger.finish(trial, TrialState.COMPLETE, [trial.params["predictor.k"] / 20])
        return drawn

    drawn = draw(tmp_path / "one", reopen=())
    assert drawn == draw(tmp_path / "other", reopen=(2, 12))
    assert len({tuple(values.values()) for values in drawn[:10]}) > 5, "each draw has random numbers of its own"


def test_another_space_is_refused_other_places_are_not(tmp_path):
    Ledger.open(knn(), None, tmp_path)
    Ledger.open(knn(overrides=["predictor=knn", *SMALL, "dataset.root=elsewhere"], trials=9), None, tmp_path)
    with pytest.raises(UserError, match="seeds differs"):
        Ledger.open(knn(seeds=[1]), None, tmp_path)
    with pytest.raises(UserError, match="overrides differs"):
        Ledger.open(knn(overrides=["predictor=knn", *SMALL, "train=61"]), None, tmp_path)


@pytest.mark.parametrize(
    ("storage", "message"),
    [("sqlite:///x.db", "PostgreSQL"), ("journal", "not a URL"), ("postgresql://a@127.0.0.1:1/b", "check the server")],
)
def test_other_storages_are_refused(tmp_path, storage, message):
    with pytest.raises(UserError, match=message):
        open_storage(storage, "name", tmp_path)


def test_a_trial_is_the_mean_over_seeds_with_its_speed(tmp_path):
    space = knn(objectives=["kendall_tau", "ms_per_architecture"], seeds=[3, 4])
    trial = Ledger.open(space, None, tmp_path).claim()
    tau, milliseconds = run_trial(trial, space, tmp_path)
    records = [yaml.safe_load(path.read_text()) for path in sorted(tmp_path.glob("trials/*/record.json"))]
    assert [record["seed"] for record in records] == [3, 4]
    assert tau == pytest.approx(statistics.fmean(record["metrics"]["val"]["kendall_tau"] for record in records))
    assert {record["config"]["predictor"]["k"] for record in records} == {trial.params["predictor.k"]}
    assert 0 < milliseconds < 1000


class AfterSecondReport(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return len(trial.intermediate_values) == 2


def test_pruning_reports_the_validation_curve_by_epoch(tmp_path):
    space = gin("logger=csv", "recipe.epochs=9", "recipe.eval_every=2", pruner="median")
    ledger = Ledger.open(space, None, tmp_path)
    ledger.study.pruner = AfterSecondReport()
    trial = ledger.claim()
    with pytest.raises(optuna.TrialPruned):
        run_trial(trial, space, tmp_path)
    (curve,) = tmp_path.glob("trials/*/csv/metrics.csv")
    rows = [row for row in csv.DictReader(curve.open()) if row.get("val/kendall_tau")]
    reported = ledger.study.trials[0].intermediate_values
    assert list(reported) == [2, 4]
    assert list(reported.values()) == pytest.approx([float(row["val/kendall_tau"]) for row in rows], abs=1e-6)
    assert not list(tmp_path.glob("trials/*/record.json"))


def test_pruning_reports_the_better_of_raw_and_averaged_weights(tmp_path):
    space = gin(
        "logger=csv", "recipe.epochs=6", "recipe.eval_every=1", "recipe.ema=0.95", "recipe.lr=3e-3", pruner="median"
    )
    ledger = Ledger.open(space, None, tmp_path)
    run_trial(ledger.claim(), space, tmp_path)
    (curve,) = tmp_path.glob("trials/*/csv/metrics.csv")
    by_epoch = {}
    for row in csv.DictReader(curve.open()):
        found = [float(row[key]) for key in ("val/kendall_tau", "val_ema/kendall_tau") if row.get(key)]
        if row["epoch"] and found:
            by_epoch.setdefault(int(row["epoch"]), []).extend(found)
    assert all(len(values) == 2 for values in by_epoch.values())
    reported = ledger.study.trials[0].intermediate_values
    assert list(reported.values()) == pytest.approx([max(values) for values in by_epoch.values()], abs=1e-6)
    assert any(min(values) < max(values) - 1e-3 for values in by_epoch.values())


def test_trials_are_a_group_of_wandb_and_a_pruned_one_is_closed(tmp_path, monkeypatch):
    groups = []
    original = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: groups.append(settings["group"]) or original(**settings))
    space = gin("logger=wandb", "recipe.epochs=2", "recipe.eval_every=1", pruner="median")
    ledger = Ledger.open(space, None, tmp_path)
    ledger.study.pruner = AfterSecondReport()
    with pytest.raises(optuna.TrialPruned):
        run_trial(ledger.claim(), space, tmp_path)
    assert groups == ["knn"]
    assert wandb.run is None


CONFIGURATIONS = {
    "digits201": (["predictor=gin", "recipe.epochs=7", "train=50"], {"recipe.lr": 0.003, "predictor.layers": 2}),
    "its own recipe": (["predictor=nnformer", "trainer.precision=16-mixed"], {"predictor.depth": 3}),
    "networks": (["predictor=nnformer", "dataset=nnlqp", "dataset.root=there"], {"predictor.depth": 3}),
    "held-out family": (["predictor=gin", "dataset=nnlqp", "protocol=ood", "protocol.family=alexnet"], {"recipe.lr": 0.1}),
    "experiment": (["experiment=nnformer_nasbench101_172"], {"predictor.dim": 96}),
    "list": (["predictor=narformer"], {"predictor.depths": "[4,1,1,1]"}),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_the_best_configuration_is_an_experiment_file(tmp_path, case):
    overrides, values = CONFIGURATIONS[case]
    space = knn(overrides=overrides)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/best.yaml").write_text(experiment_file(space, values, "title"))
    found = compose(["experiment=best", f"hydra.searchpath=[file://{tmp_path}]"])
    expected = trial_config(space, values, 0, tmp_path)
    for config in (found, expected):
        for key in NOT_HASHED:
            OmegaConf.update(config, key, None, force_add=True)
    assert OmegaConf.to_container(found, resolve=True) == OmegaConf.to_container(expected, resolve=True)


def test_drawn_values_survive_the_command_line():
    values = {"recipe.lr": 1.2345678901234567e-05, "recipe.epochs": 3, "trainer.deterministic": False}
    config = typed(compose(["predictor=gin", *as_overrides(values)]))
    assert (config.recipe.lr, config.recipe.epochs, config.trainer.deterministic) == tuple(values.values())


def test_workers_share_the_cores():
    assert shares([0, 2, 4, 6, 8], 2) == [[0, 2, 4], [6, 8]]
    assert shares([5, 7], 3) == [[5], [7], [5]]
    for workers in range(1, 9):
        groups = shares(list(range(8)), workers)
        assert sorted(itertools.chain(*groups)) == list(range(8))


def interrupt_when_running(ledger, pids):
    while not pids:
        time.sleep(0.02)
        pids += [int(t.user_attrs["worker"].split(":")[1]) for t in ledger.study.get_trials() if "worker" in t.user_attrs]
    _thread.interrupt_main()


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where the tests run in the background of a shell, which has its jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_sweep_continues(tmp_path, capsys):
    sweep, pids = Sweep(knn(objectives=["kendall_tau", "ms_per_architecture"], trials=25), None, tmp_path, 1), []
    thread = threading.Thread(target=interrupt_when_running, args=(Ledger.open(sweep.space, None, tmp_path), pids))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        driver.run(sweep)
    thread.join()
    assert not psutil.pid_exists(pids[0]) or psutil.Process(pids[0]).status() == psutil.STATUS_ZOMBIE
    ledger = driver.run(sweep)
    assert len(ledger.finished()) == 25
    assert {"history.png", "importance.png", "pareto.png"} <= {path.name for path in tmp_path.iterdir()}
    front = {path.stem for path in (tmp_path / "experiment").glob("pareto-*.yaml")}
    assert front == {f"pareto-{trial.number:05}" for trial in ledger.study.best_trials}
    best = max(ledger.finished(), key=lambda trial: trial.values[0])
    assert (
        yaml.safe_load((tmp_path / "experiment/best.yaml").read_text())["predictor"].get("k", 8)
        == best.params["predictor.k"]
    )
    assert f"trial {best.number}: tau {best.values[0]:.4g}" in capsys.readouterr().err
    driver.write_results(ledger, tmp_path / "another" / "host")
    assert (tmp_path / "another/host/experiment/best.yaml").exists()


def test_data_that_are_absent_are_missed_before_a_trial_begins(tmp_path):
    space = knn(overrides=["predictor=knn", "dataset=nasbench201", f"dataset.root={tmp_path}"])
    with pytest.raises(UserError, match="nasbench201: no data"):
        driver.run(Sweep(space, None, tmp_path / "out", 1))
    assert not (tmp_path / "out").exists(), "no study, and no worker"


def test_a_trial_that_fails_is_told_with_its_reason_and_the_others_go_on(tmp_path, capsys):
    sizes = {"train": Dimension("categorical", choices=[60, 5000]), "predictor.k": NEIGHBOURS["predictor.k"]}
    ledger = driver.run(Sweep(knn(space=sizes, trials=4), None, tmp_path, 1))
    states = [trial.state for trial in ledger.study.trials]
    assert states.count(TrialState.COMPLETE) == 4
    assert all((trial.state == TrialState.FAIL) is (trial.params["train"] == 5000) for trial in ledger.study.trials)
    assert TrialState.FAIL in states
    assert re.search(r"trial \d+: failed \(protocol.train=5000 means", capsys.readouterr().err)


def test_a_worker_gives_up_after_failures_in_a_row_and_the_configuration_is_tried_again(tmp_path):
    space = knn(overrides=["predictor=knn", *SMALL, "dataset.labels.train=absent"], trials=2)
    with pytest.raises(UserError, match="worker 0 stopped early"):
        driver.run(Sweep(space, None, tmp_path, 1))
    trials = Ledger.open(space, None, tmp_path).study.trials
    assert [trial.state for trial in trials] == [TrialState.FAIL] * FAILURES + [TrialState.WAITING]
    assert trials[0].params == trials[-1].system_attrs["fixed_params"] == space.configured


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.lr=0.1", "recipe.lr is searched"),
        ("experiment=nnformer_nasbench201_156", "write it into overrides of a copy"),
        ("hydra/launcher=submitit", "a sweep has workers of its own"),
        ("trainer=ddp", "a sweep gives every run one device"),
    ],
)
def test_what_cannot_be_changed_beside_a_space_is_refused(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        read_space(write(tmp_path), [override])


def test_an_empty_space_is_a_mistake(tmp_path):
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(UserError, match="missing mandatory value: overrides"):
        read_space(str(tmp_path / "empty.yaml"))
